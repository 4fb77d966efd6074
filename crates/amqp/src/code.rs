//! Reply codes, and what a violation is answered with.

use alloc::format;
use alloc::string::String;

use crate::method::MethodId;
use crate::text::ShortString;

/// What a code closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The channel; the others go on.
    Channel,
    /// The connection.
    Connection,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident $number:literal $text:literal $scope:ident)*) => {
        /// A reply code (AMQP 0-9-1, constants).
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            /// Its number.
            pub const fn number(self) -> u16 {
                match self {
                    $(Self::$name => $number,)*
                }
            }

            /// Its name, with which reply texts begin.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// What it closes.
            pub const fn scope(self) -> Scope {
                match self {
                    $(Self::$name => Scope::$scope,)*
                }
            }
        }
    };
}

codes! {
    /// A mandatory message that no queue takes.
    NoRoute 312 "NO_ROUTE" Channel
    /// An operator closed it, or we end.
    ConnectionForced 320 "CONNECTION_FORCED" Connection
    /// No such virtual host.
    InvalidPath 402 "INVALID_PATH" Connection
    /// May not, or not now.
    AccessRefused 403 "ACCESS_REFUSED" Channel
    /// Names what is not there.
    NotFound 404 "NOT_FOUND" Channel
    /// Belongs to another connection.
    ResourceLocked 405 "RESOURCE_LOCKED" Channel
    /// Something that is does not agree with what is asked for.
    PreconditionFailed 406 "PRECONDITION_FAILED" Channel
    /// A frame that cannot be read.
    FrameError 501 "FRAME_ERROR" Connection
    /// Fields with impossible values.
    SyntaxError 502 "SYNTAX_ERROR" Connection
    /// A method that is not for this place.
    CommandInvalid 503 "COMMAND_INVALID" Connection
    /// A channel that is not open, or is already.
    ChannelError 504 "CHANNEL_ERROR" Connection
    /// A frame out of order.
    UnexpectedFrame 505 "UNEXPECTED_FRAME" Connection
    /// The server lacks what it needs.
    ResourceError 506 "RESOURCE_ERROR" Connection
    /// What may never be.
    NotAllowed 530 "NOT_ALLOWED" Connection
    /// What is not built.
    NotImplemented 540 "NOT_IMPLEMENTED" Connection
    /// A mistake of the server.
    InternalError 541 "INTERNAL_ERROR" Connection
}

/// A violation: what closes a channel or a connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} - {explanation}", code.name())]
pub struct Fault {
    /// Its code.
    pub code: Code,
    /// What goes on from the code's name.
    pub explanation: String,
    /// The method that caused it.
    pub method: MethodId,
}

impl Fault {
    /// Caused by no method, or by the one that is being carried out.
    pub fn new(code: Code, explanation: impl Into<String>) -> Self {
        Self {
            code,
            explanation: explanation.into(),
            method: MethodId::NONE,
        }
    }

    /// Caused by this method, unless another one is known.
    #[must_use]
    pub fn by(mut self, method: MethodId) -> Self {
        if self.method == MethodId::NONE {
            self.method = method;
        }
        self
    }

    /// The text of the close method.
    pub fn reply_text(&self) -> ShortString {
        ShortString::cut(&format!("{} - {}", self.code.name(), self.explanation))
    }
}
