//! What attackers send: each case of `smuggling.toml`, whole and in all cuts.

use crate::corpus::{Case, Http2Case, ResponseCase};
use bytes::{Bytes, BytesMut};
use mainstay_http1::{
    BodyError, Content, Decoder, Framing, HeadLimits, Http2Head, Method, Persistence, Request,
    Response, Scan, Step,
};
use std::collections::BTreeSet;

mod corpus;

const LIMITS: HeadLimits = HeadLimits {
    len_max: 64 * 1024,
    fields_max: 100,
};

/// A reader of one connection, which gets its bytes in pieces.
struct Reader {
    side: Side,
    input: BytesMut,
    stage: Stage,
    said: Vec<String>,
}

#[derive(Clone, Copy)]
enum Side {
    Requests,
    Answers(Method),
}

enum Stage {
    Head(Scan),
    Body {
        decoder: Decoder,
        framing: Framing,
        taken: usize,
        after: &'static str,
    },
    Over,
}

impl Reader {
    fn new(side: Side) -> Self {
        Self {
            side,
            input: BytesMut::new(),
            stage: Stage::Head(Scan::default()),
            said: Vec::new(),
        }
    }

    fn read(&mut self, piece: &[u8]) {
        self.input.extend_from_slice(piece);
        while self.advance() {}
    }

    /// The peer closes.
    fn end(mut self) -> Vec<String> {
        let is_whole = match &mut self.stage {
            Stage::Head(_) => self.input.is_empty(),
            Stage::Body { decoder, .. } => decoder.end_of_input().is_ok(),
            Stage::Over => true,
        };
        if is_whole {
            while self.advance() {}
        } else {
            self.said.push("unfinished".to_owned());
        }
        self.said
    }

    /// Takes one step; whether another one may be possible.
    fn advance(&mut self) -> bool {
        match &mut self.stage {
            Stage::Over => false,
            Stage::Head(scan) => match scan.find_end(&self.input, LIMITS) {
                Ok(None) => false,
                Ok(Some(end)) => {
                    let head = self.input.split_to(end).freeze();
                    let parsed = match self.side {
                        Side::Requests => request(head),
                        Side::Answers(to) => response(head, to),
                    };
                    match parsed {
                        Ok((framing, after)) => {
                            self.stage = Stage::Body {
                                decoder: Decoder::new(framing),
                                framing,
                                taken: 0,
                                after,
                            }
                        }
                        Err(said) => self.finish(said),
                    }
                    true
                }
                Err(refused) => {
                    let said = match self.side {
                        Side::Requests => {
                            format!("refused {} {}", refused.status(), refused.word())
                        }
                        Side::Answers(_) => format!("refused {}", refused.word()),
                    };
                    self.finish(said);
                    false
                }
            },
            Stage::Body {
                decoder,
                framing,
                taken,
                after,
            } => match decoder.decode(&mut self.input) {
                Ok(Step::NeedMore) => false,
                Ok(Step::Data(data)) => {
                    assert!(!data.is_empty());
                    *taken += data.len();
                    true
                }
                Ok(Step::End(_)) => {
                    let said = said(*framing, *taken) + after;
                    self.said.push(said);
                    self.stage = if after.is_empty() {
                        Stage::Head(Scan::default())
                    } else {
                        Stage::Over
                    };
                    !self.input.is_empty()
                }
                Err(error) => {
                    self.finish(format!("broken {}", error.word()));
                    false
                }
            },
        }
    }

    fn finish(&mut self, said: String) {
        self.said.push(said);
        self.stage = Stage::Over;
    }
}

type Head = Result<(Framing, &'static str), String>;

fn request(head: Bytes) -> Head {
    let request = Request::parse(head, LIMITS)
        .map_err(|refused| format!("refused {} {}", refused.status(), refused.word()))?;
    Ok(match (request.upgrade(), request.persistence) {
        (Some(_), _) => (request.framing, " upgrade"),
        (None, Persistence::Close) => (request.framing, " close"),
        (None, Persistence::KeepAlive) => (request.framing, ""),
    })
}

fn response(head: Bytes, to: Method) -> Head {
    let response =
        Response::parse(head, to, LIMITS).map_err(|error| format!("refused {}", error.word()))?;
    Ok(match response.persistence {
        Persistence::Close => (response.framing, " close"),
        Persistence::KeepAlive => (response.framing, ""),
    })
}

fn said(framing: Framing, taken: usize) -> String {
    match framing {
        Framing::None => "none".to_owned(),
        Framing::Length(_) => format!("length {taken}"),
        Framing::Chunked => format!("chunked {taken}"),
        Framing::UntilClose => format!("until-close {taken}"),
    }
}

fn read_all<'a>(side: Side, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
    let mut reader = Reader::new(side);
    for piece in pieces {
        reader.read(piece);
    }
    reader.end()
}

/// Long ones are not cut at each of their thousands of places.
const CUTS_MAX: usize = 2000;

/// The same bytes at once, byte by byte, and in two pieces, cut at every place.
fn check(name: &str, side: Side, bytes: &[u8], expect: &[String]) {
    assert_eq!(read_all(side, [bytes]), expect, "{name}");
    assert_eq!(
        read_all(side, bytes.chunks(1)),
        expect,
        "{name}, byte by byte"
    );
    for cut in 1..bytes.len().min(CUTS_MAX) {
        let (a, b) = bytes.split_at(cut);
        assert_eq!(read_all(side, [a, b]), expect, "{name}, cut at {cut}");
    }
}

fn method(name: &str) -> Method {
    match name {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        _ => panic!("{name} is not used in the corpus"),
    }
}

#[test]
fn every_request_of_the_corpus_is_read_as_it_says() {
    let corpus = corpus::read();
    assert!(corpus.request.len() >= 120, "{}", corpus.request.len());
    let mut wrong = Vec::new();
    for Case {
        name,
        bytes,
        expect,
        ..
    } in &corpus.request
    {
        let said = read_all(Side::Requests, [bytes.0.as_slice()]);
        if said != *expect {
            wrong.push((name, said));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    for Case {
        name,
        bytes,
        expect,
        ..
    } in &corpus.request
    {
        check(name, Side::Requests, &bytes.0, expect);
    }
}

#[test]
fn every_answer_of_the_corpus_is_read_as_it_says() {
    for ResponseCase {
        name,
        to,
        bytes,
        expect,
        ..
    } in &corpus::read().response
    {
        check(name, Side::Answers(method(to)), &bytes.0, expect);
    }
}

#[test]
fn every_http2_request_of_the_corpus_is_read_as_it_says() {
    for Http2Case {
        name,
        method,
        path,
        authority,
        content,
        fields,
        expect,
        ..
    } in &corpus::read().http2
    {
        let text = |bytes: &'_ corpus::Escaped| String::from_utf8(bytes.0.clone()).unwrap();
        let (method, path) = (text(method), text(path));
        let authority = authority.as_ref().map(text);
        let head = Http2Head {
            method: &method,
            path: &path,
            authority: authority.as_deref(),
            content: if *content {
                Content::Present
            } else {
                Content::Absent
            },
        };
        let fields = fields
            .iter()
            .map(|(name, value)| (name.0.as_slice(), value.0.as_slice()));
        let said = match Request::from_http2(head, fields, LIMITS) {
            Err(refused) => format!("refused {}", refused.word()),
            Ok(request) => match request.framing {
                Framing::Length(length) => format!("length {length}"),
                Framing::Chunked => "chunked".to_owned(),
                Framing::None | Framing::UntilClose => "none".to_owned(),
            },
        };
        assert_eq!(said, *expect, "{name}");
    }
}

#[test]
fn every_case_has_a_name_of_its_own() {
    let corpus = corpus::read();
    let names = corpus.request.iter().map(|case| &case.name);
    let names = names.chain(corpus.response.iter().map(|case| &case.name));
    let names: Vec<_> = names
        .chain(corpus.http2.iter().map(|case| &case.name))
        .collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
}

#[test]
fn truncated_anywhere_nothing_panics_and_nothing_more_is_said_than_of_the_whole() {
    for Case {
        name,
        bytes,
        expect,
        ..
    } in &corpus::read().request
    {
        for len in 0..bytes.0.len().min(500) {
            let mut said = read_all(Side::Requests, [&bytes.0[..len]]);
            if said.last().is_some_and(|last| last == "unfinished") {
                said.pop();
            }
            assert!(expect.starts_with(&said), "{name}, {len} bytes: {said:?}");
        }
    }
}

#[test]
fn an_error_is_said_again() {
    let mut decoder = Decoder::new(Framing::Chunked);
    let mut input = BytesMut::from("x");
    assert_eq!(decoder.decode(&mut input).unwrap_err(), BodyError::Size);
    let mut input = BytesMut::from("0\r\n\r\n");
    assert_eq!(decoder.decode(&mut input).unwrap_err(), BodyError::Size);
    assert_eq!(decoder.end_of_input(), Err(BodyError::Size));
    assert!(!decoder.is_complete());
}
