//! Changes that happen all at once, or not at all.

use std::io;

use super::expression::LIST_ELEM;
use super::{Element, Expression, Family, Generation, Name, Set};
use crate::netlink::attribute::Writer;
use crate::netlink::socket::{self, ACK, Answer, HEADER_LEN, REQUEST, Socket};

/// `NFNL_SUBSYS_NFTABLES`, as the upper half of a message's type.
pub(super) const SUBSYSTEM: u16 = 10 << 8;
/// `NFNL_MSG_BATCH_BEGIN` and `_END`.
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// The subsystem to which a batch belongs.
const BATCH_OF: u16 = 10;
/// `NFNL_BATCH_GENID`.
const BATCH_GENERATION: u16 = 1;
/// Where its value stands: behind the headers of the message and of the attribute.
const GENERATION_AT: usize = HEADER_LEN + 4 + 4;
/// Not refused, whatever the generation.
const ANY_GENERATION: u32 = 0;

const CREATE: u16 = 0x400;
/// Refuse what is there already (`NLM_F_EXCL`).
const EXCLUSIVE: u16 = 0x200;
/// Behind the others (`NLM_F_APPEND`).
const APPEND: u16 = 0x800;

/// Elements of one message. The list is one attribute, whose length is two bytes; half of that
/// leaves room for any single element.
const ELEMENTS_LEN_MAX: usize = 32 * 1024;

/// Where a base chain is hooked in (`NF_INET_*`), of which type it is, and its priority: chains with
/// a lower one come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// `type nat hook prerouting`.
    NatPrerouting(i32),
    /// `type nat hook output`.
    NatOutput(i32),
    /// `type nat hook postrouting`.
    NatPostrouting(i32),
    /// `type filter hook prerouting`.
    FilterPrerouting(i32),
    /// `type filter hook input`.
    FilterInput(i32),
    /// `type filter hook forward`.
    FilterForward(i32),
    /// `type filter hook output`.
    FilterOutput(i32),
    /// `type filter hook postrouting`.
    FilterPostrouting(i32),
    /// `type filter hook input` of ARP.
    ArpInput(i32),
}

impl Hook {
    fn parts(self) -> (&'static str, u32, i32) {
        match self {
            Self::NatPrerouting(priority) => ("nat", 0, priority),
            Self::NatOutput(priority) => ("nat", 3, priority),
            Self::NatPostrouting(priority) => ("nat", 4, priority),
            // NF_ARP_IN is 0, as the first one of IP.
            Self::FilterPrerouting(priority) | Self::ArpInput(priority) => ("filter", 0, priority),
            Self::FilterInput(priority) => ("filter", 1, priority),
            Self::FilterForward(priority) => ("filter", 2, priority),
            Self::FilterOutput(priority) => ("filter", 3, priority),
            Self::FilterPostrouting(priority) => ("filter", 4, priority),
        }
    }
}

/// What becomes of a packet at the end of a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// It goes on.
    Accept,
    /// It is gone, without a word.
    Drop,
}

/// A chain.
#[derive(Debug, Clone)]
pub struct Chain {
    /// Unlike those of the table's other chains.
    pub name: Name,
    /// `None`: packets come here only from other chains.
    pub base: Option<(Hook, Policy)>,
}

/// Why a transaction changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum TransactionError {
    /// The kernel does not want a part of it.
    #[error("nf_tables refused {what}; nothing was changed")]
    Refused {
        /// What was to be done with what.
        what: String,
        /// The element, counted over all that were added to, or deleted from, that set in one call;
        /// if it was one, and the kernel said which.
        element: Option<usize>,
        /// Why; a missing right is `EPERM`.
        source: io::Error,
    },
    /// Somebody else changed rules since the generation that was expected.
    #[error("another program changed rules of nf_tables in between; nothing was changed")]
    Overtaken,
    /// It could not be sent, or its answers were lost.
    #[error("cannot talk to nf_tables")]
    Socket(#[source] io::Error),
    /// Whether it was carried out is not known: look.
    #[error("nf_tables answered {answers} of {messages} messages")]
    Unanswered {
        /// Those that came.
        answers: usize,
        /// Those that were to be answered.
        messages: usize,
    },
}

/// What a message does.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Deed {
    AddTable,
    DeleteTable,
    AddChain(Name),
    AddRule(Name),
    FlushChain(Name),
    AddSet(Name),
    /// The first element of the message among those of its call.
    AddElements(Name, usize),
    DeleteElements(Name, usize),
    FlushSet(Name),
}

/// One message, and where its elements begin.
#[derive(Debug)]
struct Step {
    deed: Deed,
    elements: Vec<usize>,
}

/// A batch of changes of one table.
#[derive(Debug)]
pub struct Transaction {
    family: Family,
    table: Name,
    out: Writer,
    steps: Vec<Step>,
    sets: u32,
}

impl Transaction {
    /// Changes nothing yet.
    pub fn new(family: Family, table: Name) -> Self {
        let mut out = Writer::default();
        message(&mut out, BATCH_BEGIN, (REQUEST, 0), (0, BATCH_OF), |out| {
            out.number(BATCH_GENERATION, ANY_GENERATION);
        });
        Self {
            family,
            table,
            out,
            steps: Vec::new(),
            sets: 0,
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Refuses everything if the rules are of another generation by then; see
    /// [`Socket::generation`].
    pub fn only_at(&mut self, generation: Generation) {
        self.out
            .overwrite(GENERATION_AT, &generation.0.to_be_bytes());
    }

    /// Makes the table, if it is not there.
    pub fn add_table(&mut self) {
        self.step(Deed::AddTable, 0, CREATE, |out| out.number(2, 0));
    }

    /// Deletes the table with everything in it. It has to be there.
    pub fn delete_table(&mut self) {
        self.step(Deed::DeleteTable, 2, 0, |_| ());
    }

    /// Makes a chain, if it is not there.
    pub fn add_chain(&mut self, chain: &Chain) {
        let Chain { name, base } = chain;
        self.step(Deed::AddChain(name.clone()), 3, CREATE, |out| {
            out.text(3, name.as_str());
            if let Some((hook, policy)) = base {
                let (kind, number, priority) = hook.parts();
                out.nest(4, |out| {
                    out.number(1, number);
                    out.attribute(2, &priority.to_be_bytes());
                });
                out.number(
                    5,
                    match policy {
                        Policy::Drop => 0,
                        Policy::Accept => 1,
                    },
                );
                out.text(7, kind);
            }
        });
    }

    /// Puts a rule behind the others of its chain.
    pub fn add_rule(&mut self, chain: &Name, rule: &[Expression]) {
        self.step(Deed::AddRule(chain.clone()), 6, CREATE | APPEND, |out| {
            out.text(2, chain.as_str());
            out.nest(4, |out| {
                for expression in rule {
                    out.nest(LIST_ELEM, |out| expression.write(out));
                }
            });
        });
    }

    /// Deletes all rules of a chain.
    pub fn flush_chain(&mut self, chain: &Name) {
        self.step(Deed::FlushChain(chain.clone()), 8, 0, |out| {
            out.text(2, chain.as_str());
        });
    }

    /// Makes a set or a map, if it is not there.
    pub fn add_set(&mut self, set: &Set) {
        self.sets += 1;
        let id = self.sets;
        self.step(Deed::AddSet(set.name.clone()), 9, CREATE, |out| {
            out.text(2, set.name.as_str());
            set.write(out, id);
        });
    }

    /// Adds elements that must not be there yet.
    pub fn add_elements(&mut self, set: &Name, elements: &[Element]) {
        let deed = |first| Deed::AddElements(set.clone(), first);
        self.elements(set, elements, (12, CREATE | EXCLUSIVE), deed);
    }

    /// Deletes elements, which have to be there.
    pub fn delete_elements(&mut self, set: &Name, elements: &[Element]) {
        let deed = |first| Deed::DeleteElements(set.clone(), first);
        self.elements(set, elements, (14, 0), deed);
    }

    /// Deletes all elements of a set.
    pub fn flush_set(&mut self, set: &Name) {
        self.step(Deed::FlushSet(set.clone()), 14, 0, |out| {
            out.text(2, set.as_str());
        });
    }

    /// As many messages as the elements need.
    fn elements(
        &mut self,
        set: &Name,
        elements: &[Element],
        (kind, flags): (u16, u16),
        deed: impl Fn(usize) -> Deed,
    ) {
        let mut first = 0;
        while first < elements.len() {
            let begin = self.out.len();
            let mut begins = Vec::new();
            self.step(deed(first), kind, flags, |out| {
                out.text(2, set.as_str());
                out.nest(3, |out| {
                    let list = out.len();
                    for element in &elements[first..] {
                        if out.len() - list >= ELEMENTS_LEN_MAX {
                            break;
                        }
                        begins.push(out.len() - begin);
                        out.nest(LIST_ELEM, |out| element.write(out));
                    }
                });
            });
            first += begins.len();
            if let Some(step) = self.steps.last_mut() {
                step.elements = begins;
            }
        }
    }

    fn step(&mut self, deed: Deed, kind: u16, flags: u16, write: impl FnOnce(&mut Writer)) {
        let elements = Vec::new();
        self.steps.push(Step { deed, elements });
        let sequence = u32::try_from(self.steps.len()).unwrap_or(u32::MAX);
        let table = &self.table;
        message(
            &mut self.out,
            SUBSYSTEM | kind,
            (REQUEST | ACK | flags, sequence),
            (self.family.number(), 0),
            |out| {
                out.text(1, table.as_str());
                write(out);
            },
        );
    }

    /// Carries all of it out, or nothing. How long it takes is up to the kernel: some 0.4 ms for a few
    /// elements, of which most is the wait until no packet uses the old ones.
    pub fn commit(mut self, socket: &Socket) -> Result<(), TransactionError> {
        let sequence = u32::try_from(self.steps.len() + 1).unwrap_or(u32::MAX);
        let end = (REQUEST, sequence);
        message(&mut self.out, BATCH_END, end, (0, BATCH_OF), |_| ());
        let answers = socket
            .transact(self.out.as_bytes())
            .map_err(TransactionError::Socket)?;
        let overtaken = |answer: &Answer| answer.errno == libc::ERESTART;
        if answers.iter().any(overtaken) {
            return Err(TransactionError::Overtaken);
        }
        if let Some(refused) = answers.iter().find(|answer| answer.errno != 0) {
            return Err(self.refused(*refused));
        }
        if answers.len() < self.steps.len() {
            return Err(TransactionError::Unanswered {
                answers: answers.len(),
                messages: self.steps.len(),
            });
        }
        Ok(())
    }

    fn refused(&self, answer: Answer) -> TransactionError {
        let source = io::Error::from_raw_os_error(answer.errno);
        let index = usize::try_from(answer.sequence).unwrap_or(usize::MAX);
        // The batch as a whole is answered under its own number.
        let step = index.checked_sub(1).and_then(|index| self.steps.get(index));
        let element = step.and_then(|step| step.element_at(answer.offset?));
        let what = match step {
            None => format!("changes of table `{}`", self.table),
            Some(step) => step.deed.describe(&self.table, element),
        };
        TransactionError::Refused {
            what,
            element,
            source,
        }
    }
}

impl Step {
    /// Which element stands at this place of the message.
    fn element_at(&self, offset: usize) -> Option<usize> {
        let before = self.elements.partition_point(|begin| *begin <= offset);
        let first = match self.deed {
            Deed::AddElements(_, first) | Deed::DeleteElements(_, first) => first,
            Deed::AddTable
            | Deed::DeleteTable
            | Deed::AddChain(_)
            | Deed::AddRule(_)
            | Deed::FlushChain(_)
            | Deed::AddSet(_)
            | Deed::FlushSet(_) => return None,
        };
        Some(first + before.checked_sub(1)?)
    }
}

impl Deed {
    fn describe(&self, table: &Name, element: Option<usize>) -> String {
        let which = || match element {
            Some(index) => format!("element {index}"),
            None => "elements".to_owned(),
        };
        match self {
            Self::AddTable => format!("to make table `{table}`"),
            Self::DeleteTable => format!("to delete table `{table}`"),
            Self::AddChain(chain) => format!("to make chain `{chain}` of table `{table}`"),
            Self::AddRule(chain) => format!("a rule of chain `{chain}` of table `{table}`"),
            Self::FlushChain(chain) => format!("to empty chain `{chain}` of table `{table}`"),
            Self::AddSet(set) => format!("to make set `{set}` of table `{table}`"),
            Self::AddElements(set, _) => {
                format!("to add {} to set `{set}` of table `{table}`", which())
            }
            Self::DeleteElements(set, _) => {
                format!("to delete {} of set `{set}` of table `{table}`", which())
            }
            Self::FlushSet(set) => format!("to empty set `{set}` of table `{table}`"),
        }
    }
}

/// Writes a message: its header, netfilter's own (family, version, resource), and what is in it.
pub(super) fn message(
    out: &mut Writer,
    kind: u16,
    header: (u16, u32),
    (family, resource): (u8, u16),
    write: impl FnOnce(&mut Writer),
) {
    socket::message(out, kind, header, |out| {
        let [high, low] = resource.to_be_bytes();
        out.raw(&[family, 0, high, low]);
        write(out);
    });
}
