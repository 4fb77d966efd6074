//! Texts with places that only the moment of starting an instance can fill: `{port}`.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;

use mainstay_ids::ServiceName;
use mainstay_ids::name::NameError;

/// One part of a [`Template`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Text that stands as it is.
    Literal(String),
    /// `{host}`: the address on which the instance is to listen.
    Host,
    /// `{port}`: the port on which the instance is to listen.
    Port,
    /// `{address:NAME}`: the service address of another service, as `IP:port`.
    Address(ServiceName),
}

/// Why a text is not a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A brace was opened and not closed.
    #[error("`{{` is not closed; write `{{{{` for a brace that stands for itself")]
    Open,
    /// A brace was closed that was not opened.
    #[error("`}}` closes nothing; write `}}}}` for a brace that stands for itself")]
    Close,
    /// What stands in braces is none of ours.
    #[error("`{{{found}}}` is not known; expected {{host}}, {{port}} or {{address:SERVICE}}")]
    Unknown {
        /// The text between the braces.
        found: String,
    },
    /// What stands behind `address:` is not a service's name.
    #[error("`{{address:...}}` wants a service's name")]
    Name(#[from] NameError),
    /// A NUL byte cannot be handed to a program.
    #[error("a NUL character cannot be handed to a program")]
    Nul,
}

/// A text with `{host}`, `{port}` and `{address:SERVICE}` in it; `{{` and `}}` stand for braces.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(try_from = "String", into = "String")]
pub struct Template(Vec<Piece>);

impl Template {
    /// Reads a template.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        if text.contains('\0') {
            return Err(TemplateError::Nul);
        }
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                literal.push_str(brace);
                rest = after;
            } else if brace == "}" {
                return Err(TemplateError::Close);
            } else {
                let (inner, after) = rest.split_once('}').ok_or(TemplateError::Open)?;
                if !literal.is_empty() {
                    pieces.push(Piece::Literal(core::mem::take(&mut literal)));
                }
                pieces.push(parse_place(inner)?);
                rest = after;
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        Ok(Self(pieces))
    }

    /// The parts in order.
    pub fn pieces(&self) -> &[Piece] {
        &self.0
    }

    /// The services whose address stands in it.
    pub fn addressed(&self) -> impl Iterator<Item = &ServiceName> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Address(name) => Some(name),
            Piece::Literal(_) | Piece::Host | Piece::Port => None,
        })
    }

    /// Fills the places in. `Err` names the service whose address is not known.
    pub fn fill(
        &self,
        listen: SocketAddr,
        address_of: impl Fn(&ServiceName) -> Option<SocketAddr>,
    ) -> Result<String, &ServiceName> {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Literal(literal) => text.push_str(literal),
                Piece::Host => text.push_str(&listen.ip().to_string()),
                Piece::Port => text.push_str(&listen.port().to_string()),
                Piece::Address(name) => {
                    text.push_str(&address_of(name).ok_or(name)?.to_string());
                }
            }
        }
        Ok(text)
    }
}

fn parse_place(inner: &str) -> Result<Piece, TemplateError> {
    match inner {
        "host" => Ok(Piece::Host),
        "port" => Ok(Piece::Port),
        _ => match inner.strip_prefix("address:") {
            Some(name) => Ok(Piece::Address(ServiceName::parse(name)?)),
            None => Err(TemplateError::Unknown {
                found: inner.to_string(),
            }),
        },
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for piece in &self.0 {
            match piece {
                Piece::Literal(text) => f.write_str(&text.replace('{', "{{").replace('}', "}}"))?,
                Piece::Host => f.write_str("{host}")?,
                Piece::Port => f.write_str("{port}")?,
                Piece::Address(name) => write!(f, "{{address:{name}}}")?,
            }
        }
        Ok(())
    }
}

impl TryFrom<String> for Template {
    type Error = TemplateError;
    fn try_from(text: String) -> Result<Self, TemplateError> {
        Self::parse(&text)
    }
}

impl From<Template> for String {
    fn from(template: Template) -> Self {
        template.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;

    #[test]
    fn places_are_filled_in_and_doubled_braces_stand_for_themselves() {
        let template =
            Template::parse("http://{address:pay}/{{x}}?me={host}:{port}").expect("legal");
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let filled = template.fill(at(7), |name| (name.as_str() == "pay").then(|| at(9)));
        assert_eq!(
            filled.as_deref(),
            Ok("http://127.0.0.1:9/{x}?me=127.0.0.1:7")
        );
        assert!(template.fill(at(7), |_| None).is_err());
        assert_eq!(Template::parse(&template.to_string()), Ok(template));
    }

    #[test]
    fn what_is_not_a_template_is_refused_with_its_reason() {
        assert_eq!(Template::parse("{port"), Err(TemplateError::Open));
        assert_eq!(Template::parse("port}"), Err(TemplateError::Close));
        let unknown = Err(TemplateError::Unknown {
            found: "prot".into(),
        });
        assert_eq!(Template::parse("{prot}"), unknown);
        assert!(matches!(
            Template::parse("{address:A}"),
            Err(TemplateError::Name(_))
        ));
        assert_eq!(Template::parse("a\0b"), Err(TemplateError::Nul));
    }
}
