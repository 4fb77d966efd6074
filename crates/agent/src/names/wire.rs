//! The part of a query that is read before anything else of it is believed: header and question.
//!
//! ```text
//!   0        2        4        6         8         10        12
//!   +--------+--------+--------+---------+---------+---------+----------------+------+-------+
//!   |   id   | flags  | QDCOUNT| ANCOUNT | NSCOUNT | ARCOUNT | labels ... 0   | type | class | ...
//!   +--------+--------+--------+---------+---------+---------+----------------+------+-------+
//! ```
//!
//! What is not ours goes on byte by byte as it came, so this must not depend on how much a library
//! understands of it. What is ours is read again, whole, by the library (see `reply`).

/// The header (RFC 1035, 4.1.1).
pub(super) const HEADER_LEN: usize = 12;

/// The longest name on the wire (RFC 1035, 2.3.4).
const NAME_LEN_MAX: usize = 255;

/// The longest label. Greater numbers begin what is no label: a pointer, which a question's name, the
/// first in the message, cannot need.
const LABEL_LEN_MAX: u8 = 63;

const RESPONSE: u16 = 0x8000;
const OPCODE: u16 = 0x7800;
const TRUNCATED: u16 = 0x0200;
const RECURSION_DESIRED: u16 = 0x0100;
const CHECKING_DISABLED: u16 = 0x0010;

/// Codes of answers (RFC 1035, 4.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    FormatError = 1,
    ServerFailure = 2,
    NotImplemented = 4,
    Refused = 5,
}

/// What a query asks for. The name is still on the wire's terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Question<'a> {
    pub(super) id: u16,
    flags: u16,
    /// The whole of it: name, type, class.
    pub(super) bytes: &'a [u8],
    pub(super) kind: u16,
}

/// Why something is no query that can be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// Nothing is said to it: it is no message, or an answer, and answers to answers go on for ever.
    Silence,
    /// It is told so.
    Told(Code),
}

impl<'a> Question<'a> {
    /// Reads a query's question.
    pub(super) fn read(message: &'a [u8]) -> Result<Self, Unreadable> {
        let Some((header, rest)) = message.split_first_chunk::<HEADER_LEN>() else {
            return Err(Unreadable::Silence);
        };
        let number = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let (id, flags, questions) = (number(0), number(2), number(4));
        if flags & RESPONSE != 0 {
            return Err(Unreadable::Silence);
        }
        if flags & OPCODE != 0 {
            return Err(Unreadable::Told(Code::NotImplemented));
        }
        if questions != 1 {
            return Err(Unreadable::Told(Code::FormatError));
        }
        let wrong = Unreadable::Told(Code::FormatError);
        let len = name_len(rest).ok_or(wrong)?;
        let bytes = rest.get(..len + 4).ok_or(wrong)?;
        let kind = u16::from_be_bytes([bytes[len], bytes[len + 1]]);
        Ok(Self {
            id,
            flags,
            bytes,
            kind,
        })
    }

    /// The labels of its name, from the left.
    pub(super) fn labels(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut rest = self.bytes;
        core::iter::from_fn(move || {
            let (len, behind) = rest.split_first()?;
            let (label, behind) = behind.split_at_checked(usize::from(*len))?;
            rest = behind;
            (!label.is_empty()).then_some(label)
        })
    }

    /// The same question with no more than its code for an answer.
    pub(super) fn refuse(&self, code: Code) -> Vec<u8> {
        let mut answer = header(self.id, self.flags, code, 1);
        answer.extend_from_slice(self.bytes);
        answer
    }

    /// The question alone, with the word that the answer did not fit.
    pub(super) fn truncated(&self, answer: &[u8]) -> Vec<u8> {
        let mut cut = self.refuse(Code::ServerFailure);
        if let Some(flags) = answer.get(2..4) {
            cut[2..4].copy_from_slice(flags);
            cut[2] |= TRUNCATED.to_be_bytes()[0];
        }
        cut
    }
}

/// An answer to what could not be read further than its header.
pub(super) fn refuse_unread(message: &[u8], code: Code) -> Vec<u8> {
    let number = |at: usize| match message.get(at..at + 2) {
        Some([high, low]) => u16::from_be_bytes([*high, *low]),
        Some(_) | None => 0,
    };
    header(number(0), number(2), code, 0)
}

fn header(id: u16, query_flags: u16, code: Code, questions: u16) -> Vec<u8> {
    let kept = query_flags & (OPCODE | RECURSION_DESIRED | CHECKING_DISABLED);
    let flags = RESPONSE | kept | code as u16;
    let mut header = Vec::with_capacity(HEADER_LEN + NAME_LEN_MAX + 4);
    for number in [id, flags, questions, 0, 0, 0] {
        header.extend_from_slice(&number.to_be_bytes());
    }
    header
}

/// The length of an uncompressed name; `None`: it is none.
fn name_len(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let len = *bytes.get(at)?;
        if len > LABEL_LEN_MAX {
            return None;
        }
        at += 1 + usize::from(len);
        if at > NAME_LEN_MAX {
            return None;
        }
        if len == 0 {
            return Some(at);
        }
    }
}

/// Whether `message` answers a query of this id for this question. Case does not count: some servers
/// write names in lower case.
pub(super) fn answers(message: &[u8], id: u16, question: &[u8]) -> bool {
    let Some((header, rest)) = message.split_first_chunk::<HEADER_LEN>() else {
        return false;
    };
    let is_answer = u16::from_be_bytes([header[2], header[3]]) & RESPONSE != 0;
    let same_id = u16::from_be_bytes([header[0], header[1]]) == id;
    let one_question = u16::from_be_bytes([header[4], header[5]]) == 1;
    let same = |asked: &[u8]| asked.eq_ignore_ascii_case(question);
    is_answer && same_id && one_question && rest.get(..question.len()).is_some_and(same)
}

/// Whether an answer says that whoever gives it cannot or will not tell, so that somebody else may.
pub(super) fn is_failure(message: &[u8]) -> bool {
    let failures = [
        Code::ServerFailure as u8,
        Code::NotImplemented as u8,
        Code::Refused as u8,
    ];
    message
        .get(3)
        .is_some_and(|flags| failures.contains(&(flags & 15)))
}

/// Puts another id in the place of a message's.
pub(super) fn set_id(message: &mut [u8], id: u16) {
    if let Some(place) = message.first_chunk_mut::<2>() {
        *place = id.to_be_bytes();
    }
}

/// A query for the address of this name, as any client asks. Labels are short.
pub(super) fn query(id: u16, labels: &[&str]) -> Vec<u8> {
    let mut query = Vec::with_capacity(HEADER_LEN + NAME_LEN_MAX + 4);
    for number in [id, RECURSION_DESIRED, 1, 0, 0, 0] {
        query.extend_from_slice(&number.to_be_bytes());
    }
    for label in labels {
        query.extend(u8::try_from(label.len()));
        query.extend_from_slice(label.as_bytes());
    }
    query.extend_from_slice(&[0, 0, 1, 0, 1]);
    query
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_read_and_every_cut_of_it_is_refused_or_passed_over() {
        let query = query(7, &["Pay", "mainstay", "internal"]);
        let question = Question::read(&query).expect("whole");
        let labels: Vec<&[u8]> = question.labels().collect();
        assert_eq!(labels, [b"Pay".as_slice(), b"mainstay", b"internal"]);
        assert_eq!((question.id, question.kind), (7, 1));
        for cut in 0..query.len() {
            let expected = if cut < HEADER_LEN {
                Unreadable::Silence
            } else {
                Unreadable::Told(Code::FormatError)
            };
            assert_eq!(Question::read(&query[..cut]), Err(expected), "{cut}");
        }
    }

    #[test]
    fn pointers_long_names_and_several_questions_are_no_question() {
        let with = |name: &[u8]| {
            let mut message = query(7, &[]);
            message.truncate(HEADER_LEN);
            message.extend_from_slice(name);
            message.extend_from_slice(&[0, 1, 0, 1]);
            message
        };
        let long = [63u8].iter().chain(&[b'a'; 63]).copied();
        let long: Vec<u8> = long.cycle().take(64 * 4).chain([0]).collect();
        let wrong = Err(Unreadable::Told(Code::FormatError));
        // A pointer to itself, one forward, a reserved kind of label, 257 bytes.
        for name in [&[0xc0, 12][..], &[0xc0, 14], &[0x40, 0], &long] {
            assert_eq!(Question::read(&with(name)), wrong);
        }
        let mut two = query(7, &["a"]);
        two[5] = 2;
        assert_eq!(Question::read(&two), wrong);
        two[2] |= 0x80;
        assert_eq!(Question::read(&two), Err(Unreadable::Silence));
    }

    #[test]
    fn an_answer_belongs_to_its_query_by_id_and_question() {
        let query = query(7, &["a", "example"]);
        let question = Question::read(&query).expect("whole");
        let mut answer = question.refuse(Code::Refused);
        assert!(answers(&answer, 7, question.bytes));
        assert!(!answers(&answer, 8, question.bytes));
        assert!(!answers(&query, 7, question.bytes));
        answer[HEADER_LEN + 1] = b'A';
        assert!(answers(&answer, 7, question.bytes));
        answer[HEADER_LEN + 1] = b'b';
        assert!(!answers(&answer, 7, question.bytes));
    }
}
