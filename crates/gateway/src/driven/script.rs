//! What an input means.
//!
//! ```text
//! flags, connections that are refused (bits), length of one piece - 1, of the next - 1, how many
//! answers; each answer: a kind, for a raw one its length and its bytes; the rest: what the client says
//! ```

/// Answers of one script at most; then they begin again.
const ANSWERS_MAX: usize = 8;

/// What is played.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) reads: Reads,
    pub(super) ends: Ends,
    /// Of each connection to an instance, eight in turns, a bit.
    pub(super) refused: u8,
    /// In which pieces the client writes, in turns.
    pub(super) cuts: [usize; 2],
    pub(super) answers: Vec<Answer>,
    pub(super) client: Vec<u8>,
    /// In names that nobody else can say.
    pub(super) secret: String,
}

/// Whether the client reads its answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reads {
    All,
    Nothing,
}

/// What the client does when it has said everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ends {
    /// It waits.
    Stays,
    /// It ends its side, and reads on.
    Closes,
    /// It goes away.
    Leaves,
    /// It repeats the last of it.
    Floods,
}

/// What an instance does with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// Answers with the request's own id.
    Tagged(Shape),
    /// The same before it has read the body.
    Early(Shape),
    /// Any bytes.
    Raw(Vec<u8>),
    /// The same, and then the end.
    RawLast(Vec<u8>),
    /// Ends the connection.
    Close,
    /// Reads, and says nothing.
    Silent,
    /// Does not even read.
    Deaf,
    /// A body without an end.
    Endless,
}

/// How a tagged answer looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Length,
    Chunked,
    UntilClose,
    NoContent,
    /// Behind two interim answers.
    Hinted,
    /// Before bytes that belong to no request.
    Poisoned,
    Unavailable,
    /// Changes the protocol if it was asked to.
    Upgrade,
}

impl Script {
    /// `None`: the input is too short to mean anything.
    pub(super) fn of(input: &[u8]) -> Option<Self> {
        let (&[flags, refused, one, other, count], mut rest) = input.split_first_chunk()?;
        let mut answers = Vec::new();
        for _ in 0..usize::from(count) % (ANSWERS_MAX + 1) {
            answers.push(answer(&mut rest)?);
        }
        if answers.is_empty() {
            answers.push(Answer::Tagged(Shape::Length));
        }
        Some(Self {
            reads: if flags & 1 == 0 {
                Reads::All
            } else {
                Reads::Nothing
            },
            ends: match flags >> 1 & 3 {
                0 => Ends::Stays,
                1 => Ends::Closes,
                2 => Ends::Leaves,
                _ => Ends::Floods,
            },
            refused,
            cuts: [usize::from(one) + 1, usize::from(other) + 1],
            answers,
            client: rest.to_vec(),
            secret: secret(input),
        })
    }

    /// Whether no instance reads anything.
    pub(super) fn is_deaf(&self) -> bool {
        self.answers.iter().all(|answer| *answer == Answer::Deaf)
    }
}

fn answer(rest: &mut &[u8]) -> Option<Answer> {
    let kind = byte(rest)?;
    Some(match kind % 20 {
        0 | 1 => Answer::Tagged(Shape::Length),
        2 => Answer::Tagged(Shape::Chunked),
        3 => Answer::Tagged(Shape::UntilClose),
        4 => Answer::Tagged(Shape::NoContent),
        5 => Answer::Tagged(Shape::Hinted),
        6 | 7 => Answer::Tagged(Shape::Poisoned),
        8 => Answer::Tagged(Shape::Unavailable),
        9 => Answer::Tagged(Shape::Upgrade),
        10 => Answer::Early(Shape::Length),
        11 => Answer::Early(Shape::Chunked),
        12 | 13 => Answer::Raw(bytes(rest)?),
        14 | 15 => Answer::RawLast(bytes(rest)?),
        16 => Answer::Close,
        17 => Answer::Silent,
        18 => Answer::Deaf,
        _ => Answer::Endless,
    })
}

fn byte(rest: &mut &[u8]) -> Option<u8> {
    let (first, others) = rest.split_first()?;
    *rest = others;
    Some(*first)
}

fn bytes(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let len = usize::from(byte(rest)?).min(rest.len());
    let (some, others) = rest.split_at(len);
    *rest = others;
    Some(some.to_vec())
}

/// FNV-1a of the input: an input that contains its own hash is not found.
fn secret(input: &[u8]) -> String {
    let hash = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    format!("{:016x}", input.iter().fold(0xcbf2_9ce4_8422_2325, hash))
}
