//! The frames of one channel, put together to methods with their contents.

use alloc::format;

use bytes::{Bytes, BytesMut};

use crate::code::{Code, Fault};
use crate::frame::{ContentHeader, Frame, Kind};
use crate::limits::BODY_MAX;
use crate::message::Content;
use crate::method::{BasicPublish, Method};

/// The class of everything with content.
const BASIC: u16 = 60;
/// Room that a body gets ahead of its coming: who announces much must first send it.
const ROOM_MAX: u64 = 1024 * 1024;

/// What is expected next.
#[derive(Debug, Default)]
pub(super) enum Assembly {
    #[default]
    Method,
    Header(BasicPublish),
    Body(BasicPublish, Body),
}

#[derive(Debug)]
pub(super) struct Body {
    properties: Bytes,
    missing: u64,
    parts: Parts,
}

/// One part is not copied; several become one.
#[derive(Debug)]
enum Parts {
    None,
    One(Bytes),
    Several(BytesMut),
}

impl Assembly {
    /// Takes a frame in; a method with its content once it is whole.
    pub(super) fn take(
        &mut self,
        frame: &Frame,
        read: impl FnOnce(&Bytes) -> Result<Method, Fault>,
    ) -> Result<Option<(Method, Option<Content>)>, Fault> {
        match (core::mem::take(self), frame.kind) {
            (Self::Method, Kind::Method) => match read(&frame.payload)? {
                Method::BasicPublish(publish) => {
                    *self = Self::Header(publish);
                    Ok(None)
                }
                method => Ok(Some((method, None))),
            },
            (Self::Method, Kind::Header | Kind::Body | Kind::Heartbeat) => {
                let what = "expected method frame, got non method frame instead";
                Err(Fault::new(Code::UnexpectedFrame, what))
            }
            (Self::Header(publish), Kind::Header) => self.begin(publish, frame),
            (Self::Header(_), Kind::Method | Kind::Body | Kind::Heartbeat) => {
                let what =
                    "expected content header for class 60, got non content header frame instead";
                Err(Fault::new(Code::UnexpectedFrame, what).by(BasicPublish::ID))
            }
            (Self::Body(publish, body), Kind::Body) => self.go_on(publish, body, &frame.payload),
            (Self::Body(..), Kind::Method | Kind::Header | Kind::Heartbeat) => {
                let what = "expected content body, got non content body frame instead";
                Err(Fault::new(Code::UnexpectedFrame, what).by(BasicPublish::ID))
            }
        }
    }

    fn begin(
        &mut self,
        publish: BasicPublish,
        frame: &Frame,
    ) -> Result<Option<(Method, Option<Content>)>, Fault> {
        let header = ContentHeader::read(&frame.payload)
            .map_err(|why| Fault::new(Code::FrameError, format!("content header: {why}")))?;
        let by = |fault: Fault| Err(fault.by(BasicPublish::ID));
        if header.class != BASIC || header.weight != 0 {
            let what = format!(
                "expected content header for class 60, got one for class {} instead",
                header.class
            );
            return by(Fault::new(Code::UnexpectedFrame, what));
        }
        if header.body_size > BODY_MAX {
            let what = format!(
                "message size {} is larger than configured max size {BODY_MAX}",
                header.body_size
            );
            return by(Fault::new(Code::PreconditionFailed, what));
        }
        let body = Body {
            properties: header.properties,
            missing: header.body_size,
            parts: Parts::None,
        };
        if body.missing == 0 {
            return Ok(Some(body.whole(publish)));
        }
        *self = Self::Body(publish, body);
        Ok(None)
    }

    fn go_on(
        &mut self,
        publish: BasicPublish,
        mut body: Body,
        part: &Bytes,
    ) -> Result<Option<(Method, Option<Content>)>, Fault> {
        let len = u64::try_from(part.len()).expect("64 bits");
        let Some(missing) = body.missing.checked_sub(len) else {
            let what = format!(
                "{len} bytes of a body came, of which {} are missing",
                body.missing
            );
            return Err(Fault::new(Code::FrameError, what).by(BasicPublish::ID));
        };
        body.parts = match core::mem::replace(&mut body.parts, Parts::None) {
            Parts::None => Parts::One(part.clone()),
            Parts::One(first) => {
                let room = first.len() + usize::try_from(body.missing.min(ROOM_MAX)).unwrap_or(0);
                let mut several = BytesMut::with_capacity(room);
                several.extend_from_slice(&first);
                several.extend_from_slice(part);
                Parts::Several(several)
            }
            Parts::Several(mut several) => {
                several.extend_from_slice(part);
                Parts::Several(several)
            }
        };
        body.missing = missing;
        if missing == 0 {
            return Ok(Some(body.whole(publish)));
        }
        *self = Self::Body(publish, body);
        Ok(None)
    }
}

impl Body {
    fn whole(self, publish: BasicPublish) -> (Method, Option<Content>) {
        let body = match self.parts {
            Parts::None => Bytes::new(),
            Parts::One(part) => part,
            Parts::Several(parts) => parts.freeze(),
        };
        let properties = self.properties;
        (publish.into(), Some(Content { properties, body }))
    }
}
