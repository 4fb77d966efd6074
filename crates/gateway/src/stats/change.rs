//! What an operator changes of the servers of listeners: a form that needs no script, and what
//! comes of it. Whether somebody may is decided by [`super::access`].
//!
//! It holds until the gateway starts anew, as in HAProxy; what is to stay is in the node's file.

use std::fmt::Write as _;

use mainstay_control::listen::Wanted;
use mainstay_ids::ListenName;
use mainstay_model::listen::{ServerName, WEIGHT_MAX};

use super::page::{escaped, push_head};
use crate::listen::snapshot::ListenSnapshot;
use crate::listen::{Handle, HandleError};

/// The longest form: two names, a word, a number and a token are below 300 bytes, and each may be
/// written with three bytes for one.
pub(crate) const FORM_LEN_MAX: usize = 4 * 1024;

/// What is wanted of which server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Order {
    listen: ListenName,
    server: ServerName,
    act: Act,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Want(Wanted),
    /// `None`: as it is written.
    Weight(Option<u16>),
}

/// A form that was filled in.
#[derive(Debug)]
pub(crate) struct Form {
    pub(crate) order: Order,
    /// The token of the API, if it was given.
    pub(crate) token: Option<String>,
}

/// A form that cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Wrong {
    #[error("`server` is missing or wrong; expected `LISTENER/SERVER`, as on the page")]
    Server,
    #[error(
        "`action` is missing or wrong; expected ready, drain, maintenance, weight or reset-weight"
    )]
    Action,
    #[error("`weight` is missing or wrong; expected 0 to {WEIGHT_MAX}")]
    Weight,
}

impl Form {
    /// Reads `application/x-www-form-urlencoded`. What is unknown is passed over.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Wrong> {
        let (mut server, mut action, mut weight, mut token) = (None, None, None, None);
        for (name, value) in form_urlencoded::parse(body) {
            match &*name {
                "server" => server = Some(value.into_owned()),
                "action" => action = Some(value.into_owned()),
                "weight" => weight = Some(value.into_owned()),
                "token" => token = Some(value.trim().to_owned()),
                _ => {}
            }
        }
        let server = server.ok_or(Wrong::Server)?;
        let (listen, server) = server.split_once('/').ok_or(Wrong::Server)?;
        let act = match action.as_deref() {
            Some("ready") => Act::Want(Wanted::Ready),
            Some("drain") => Act::Want(Wanted::Drain),
            Some("maintenance") => Act::Want(Wanted::Maintenance),
            Some("reset-weight") => Act::Weight(None),
            Some("weight") => {
                let weight = weight.and_then(|weight| weight.trim().parse().ok());
                let weight = weight.filter(|weight| *weight <= WEIGHT_MAX);
                Act::Weight(Some(weight.ok_or(Wrong::Weight)?))
            }
            Some(_) | None => return Err(Wrong::Action),
        };
        Ok(Self {
            order: Order {
                listen: ListenName::parse(listen).map_err(|_| Wrong::Server)?,
                server: ServerName::parse(server).map_err(|_| Wrong::Server)?,
                act,
            },
            token: token.filter(|token| !token.is_empty()),
        })
    }
}

impl Order {
    /// Brings it to the listeners; it is in force when this returns.
    pub(crate) async fn follow(self, listens: &Handle) -> Result<(), HandleError> {
        let Self {
            listen,
            server,
            act,
        } = self;
        tracing::info!(%listen, %server, ?act, "an operator changes a server through the statistics");
        match act {
            Act::Want(wanted) => listens.want(listen, server, wanted).await,
            Act::Weight(weight) => listens.set_weight(listen, server, weight).await,
        }
    }
}

/// Whether the form asks for the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asks {
    /// Whoever sees the form has not shown yet who they are.
    ForToken,
    /// The name and the password were shown.
    ForNothing,
}

/// The page with the form. It does not renew itself, so that nothing is lost while it is filled in.
pub(crate) fn page(listeners: &[ListenSnapshot], asks: Asks) -> String {
    let mut html = String::with_capacity(4 * 1024);
    push_head(&mut html, "Mainstay: servers of listeners");
    html.push_str("</head><body>\n<header><h1>Servers of listeners</h1></header>\n");
    html.push_str("<nav><a href=\"/stats\">Back to the statistics</a></nav>\n");
    if listeners.iter().all(|listen| listen.servers.is_empty()) {
        html.push_str("<p>The node's file has no <code>[listen.NAME]</code>.</p>\n");
    } else {
        push_form(&mut html, listeners, asks);
    }
    html.push_str(
        "<p>What is changed here holds until the gateway starts anew; what is to stay is written in the node's file.</p>\n\
         <p>Instances of services are not changed here: which of them there are is kept by the control centre, \
         and <code>mainstay scale SERVICE N</code> tells it.</p>\n</body></html>\n",
    );
    html
}

fn push_form(html: &mut String, listeners: &[ListenSnapshot], asks: Asks) {
    html.push_str("<form method=\"post\" action=\"/stats/change\">\n<label>Server <select name=\"server\" required>");
    for listen in listeners {
        let group = escaped(listen.name.as_str());
        push(html, format_args!("<optgroup label=\"{group}\">"));
        for server in &listen.servers {
            let name = escaped(server.name.as_str());
            let stands = super::listens::status(server.standing).word();
            let weight = server.weight;
            push(
                html,
                format_args!(
                    "<option value=\"{group}/{name}\">{name}: {stands}, weight {weight}</option>"
                ),
            );
        }
        html.push_str("</optgroup>");
    }
    html.push_str("</select></label>\n<fieldset><legend>What is to happen</legend>");
    for (word, text) in [
        (
            "drain",
            "Drain: it finishes its sessions, and gets no new ones",
        ),
        (
            "maintenance",
            "Maintenance: the same, and it is not checked",
        ),
        (
            "ready",
            "Ready: it serves again, as far as its checks say so",
        ),
        ("weight", "Give it this weight:"),
        ("reset-weight", "Give it the weight of the node's file"),
    ] {
        push(
            html,
            format_args!(
                "<div><label><input type=\"radio\" name=\"action\" value=\"{word}\" required> {text}</label>"
            ),
        );
        if word == "weight" {
            push(
                html,
                format_args!(
                    " <input type=\"number\" name=\"weight\" min=\"0\" max=\"{WEIGHT_MAX}\" aria-label=\"weight\">"
                ),
            );
        }
        html.push_str("</div>");
    }
    html.push_str("</fieldset>\n");
    if asks == Asks::ForToken {
        html.push_str("<label>Token <input type=\"password\" name=\"token\" autocomplete=\"off\" required> of the API: the file <code>token</code> in the state directory</label>\n");
    }
    html.push_str("<button>Change</button>\n</form>\n");
}

fn push(html: &mut String, text: std::fmt::Arguments<'_>) {
    html.write_fmt(text).expect("writing to memory cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_read_and_what_is_wrong_with_it_is_told() {
        let form = Form::parse(b"server=redis%2F10.0.0.1%3A6379&action=weight&weight=7&token=+ab+");
        let form = form.unwrap();
        assert_eq!(form.order.server.as_str(), "10.0.0.1:6379");
        assert_eq!(form.order.act, Act::Weight(Some(7)));
        assert_eq!(form.token.as_deref(), Some("ab"));
        let act = |text: &str| Form::parse(text.as_bytes()).map(|form| form.order.act);
        let ready = "server=a/b&action=ready&token=";
        assert_eq!(act(ready), Ok(Act::Want(Wanted::Ready)));
        assert_eq!(Form::parse(ready.as_bytes()).unwrap().token, None);
        for (text, wrong) in [
            ("", Wrong::Server),
            ("server=ab&action=ready", Wrong::Server),
            ("server=a/%3Cb%3E&action=ready", Wrong::Server),
            ("server=a/b", Wrong::Action),
            ("server=a/b&action=explode", Wrong::Action),
            ("server=a/b&action=weight", Wrong::Weight),
            ("server=a/b&action=weight&weight=257", Wrong::Weight),
            ("server=a/b&action=weight&weight=-1", Wrong::Weight),
        ] {
            assert_eq!(act(text), Err(wrong), "{text}");
        }
    }
}
