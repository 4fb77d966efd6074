//! What an operator changes of instances and of the servers of listeners: a form that needs no script,
//! and what comes of it. Whether somebody may is decided by [`super::access`].
//!
//! Servers of listeners are the gateway's own, which writes it down for its next start. Instances are the control centre's: it is asked, and keeps the wish for every gateway.

use std::fmt::Write as _;

use http::StatusCode;
use mainstay_api::client::{self, Client};
use mainstay_api::wire::{Accepted, SetIntake};
use mainstay_control::listen::Wanted;
use mainstay_ids::{InstanceId, ListenName};
use mainstay_model::listen::{ServerName, WEIGHT_MAX};
use mainstay_model::{Intake, IntakeState, Weight};

use super::page::{escaped, push_head};
use super::rows::{Instances, Snapshot};
use crate::listen::snapshot::ListenSnapshot;
use crate::listen::{Handle, HandleError};

/// The longest form: two names, a word, a number and a token are below 300 bytes, and each may be
/// written with three bytes for one.
pub(crate) const FORM_LEN_MAX: usize = 4 * 1024;

/// What is wanted of which server or instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Order {
    target: Target,
    act: Act,
    last: LastOne,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Server(ListenName, ServerName),
    Instance(InstanceId),
}

/// Whether requests may be taken from the last instance that gets them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LastOne {
    Refuse,
    Take,
}

/// Why an order was not followed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotFollowed {
    #[error(transparent)]
    Listens(#[from] HandleError),
    #[error("nothing was changed: {0}")]
    Refused(String, StatusCode),
    #[error(
        "the control centre, which keeps what is wanted of instances, does not answer, and {0}; try again when \
         `mainstay status` does"
    )]
    Away(String),
}

impl NotFollowed {
    /// The status of the answer.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Listens(HandleError::NoListen(_) | HandleError::NoServer { .. }) => {
                StatusCode::NOT_FOUND
            }
            Self::Listens(HandleError::Weight(_)) => StatusCode::BAD_REQUEST,
            Self::Listens(HandleError::NotKept(_)) => StatusCode::INSUFFICIENT_STORAGE,
            Self::Listens(HandleError::Gone) | Self::Away(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Refused(_, status) => *status,
        }
    }
}

/// When an order is in force, as far as this gateway can see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It is.
    Now,
    /// When the routes say so of this instance.
    Routed(InstanceId, SetIntake),
}

impl Effect {
    /// Whether what is shown shows it.
    pub(crate) fn is_in(&self, snapshot: &Snapshot) -> bool {
        let Self::Routed(instance, wish) = self else {
            return false;
        };
        let mut all = snapshot.services.iter().flat_map(|one| &one.intakes);
        // Of one that is not in the routes nothing can be seen.
        all.find(|(id, _)| id == instance)
            .is_none_or(|(_, intake)| {
                wish.state.is_none_or(|state| state == intake.state)
                    && wish.weight.is_none_or(|weight| weight == intake.weight)
            })
    }
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
    #[error(
        "`server` is missing or wrong; expected an instance, as `orders-2`, or `LISTENER/SERVER`, as on the page"
    )]
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
        let mut last = LastOne::Refuse;
        for (name, value) in form_urlencoded::parse(body) {
            match &*name {
                "server" => server = Some(value.into_owned()),
                "action" => action = Some(value.into_owned()),
                "weight" => weight = Some(value.into_owned()),
                "force" => last = LastOne::Take,
                "token" => token = Some(value.trim().to_owned()),
                _ => {}
            }
        }
        let server = server.ok_or(Wrong::Server)?;
        let target = match server.split_once('/') {
            Some((listen, server)) => Target::Server(
                ListenName::parse(listen).map_err(|_| Wrong::Server)?,
                ServerName::parse(server).map_err(|_| Wrong::Server)?,
            ),
            None => Target::Instance(server.trim().parse().map_err(|_| Wrong::Server)?),
        };
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
            order: Order { target, act, last },
            token: token.filter(|token| !token.is_empty()),
        })
    }
}

impl Order {
    /// Brings it to whoever keeps it, in the name of `who`.
    pub(crate) async fn follow(
        self,
        listens: &Handle,
        centre: &Client,
        who: String,
    ) -> Result<Effect, NotFollowed> {
        let Self { target, act, last } = self;
        match target {
            Target::Server(listen, server) => {
                tracing::info!(by = who, %listen, %server, ?act, "an operator changes a server through the statistics");
                match act {
                    Act::Want(wanted) => listens.want(listen, server, wanted).await?,
                    Act::Weight(weight) => listens.set_weight(listen, server, weight).await?,
                }
                Ok(Effect::Now)
            }
            Target::Instance(instance) => {
                tracing::info!(by = who, %instance, ?act, "an operator asks for an instance through the statistics");
                let wish = act.of_instance(last, who);
                let path = format!("/v1/instances/{instance}/intake");
                let asked = centre.put::<_, Accepted>(&path, &wish).await;
                asked.map_err(not_followed)?;
                Ok(Effect::Routed(instance, wish))
            }
        }
    }
}

impl Act {
    fn of_instance(self, last: LastOne, who: String) -> SetIntake {
        let (state, weight) = match self {
            Self::Want(Wanted::Ready) => (Some(IntakeState::Ready), None),
            Self::Want(Wanted::Drain) => (Some(IntakeState::Drain), None),
            Self::Want(Wanted::Maintenance) => (Some(IntakeState::Maintenance), None),
            Self::Weight(None) => (None, Some(Weight::ORDINARY)),
            // It was read as one that is not greater than the greatest.
            Self::Weight(Some(weight)) => (None, Weight::new(weight).ok()),
        };
        SetIntake {
            state,
            weight,
            force: last == LastOne::Take,
            asked_by: Some(who),
        }
    }
}

fn not_followed(error: client::Error) -> NotFollowed {
    match error {
        client::Error::Refused(problem) => {
            let status = StatusCode::from_u16(problem.code.status());
            let text = format!("{} ({}); {}", problem.message, problem.code, problem.remedy);
            NotFollowed::Refused(text, status.unwrap_or(StatusCode::CONFLICT))
        }
        other => {
            // Of a call that was sent nobody knows whether it was heard.
            let changed = if matches!(other, client::Error::Connect { .. }) {
                "nothing was changed"
            } else {
                "it is not known whether anything was changed"
            };
            let mut text = format!("{changed}: {other}");
            let mut cause = std::error::Error::source(&other);
            while let Some(next) = cause {
                text = format!("{text}: {next}");
                cause = next.source();
            }
            NotFollowed::Away(text)
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
pub(crate) fn page(snapshot: &Snapshot, asks: Asks) -> String {
    let mut html = String::with_capacity(4 * 1024);
    push_head(&mut html, "Mainstay: drain and weight");
    html.push_str("</head><body>\n<header><h1>Drain, maintenance and weight</h1></header>\n");
    html.push_str("<nav><a href=\"/stats\">Back to the statistics</a></nav>\n");
    let no_instance = snapshot.services.iter().all(|one| one.intakes.is_empty());
    let no_server = snapshot
        .listeners
        .iter()
        .all(|listen| listen.servers.is_empty());
    if no_instance && no_server {
        html.push_str("<p>There is no instance in the routes, and the node's file has no <code>[listen.NAME]</code>.</p>\n");
    } else {
        push_form(&mut html, snapshot, asks);
    }
    html.push_str(
        "<p>What is changed of an instance is kept by the control centre until the instance leaves, over its restarts and those of \
         Mainstay; <code>mainstay drain</code>, <code>undrain</code> and <code>weight</code> do the same.</p>\n\
         <p>What is changed of a listener's server is kept by this gateway, over its restarts and upgrades, as long as the server is \
         in the node's file with this name and address.</p>\n</body></html>\n",
    );
    html
}

fn push_instances(html: &mut String, services: &[Instances]) {
    for Instances { service, intakes } in services {
        let group = escaped(service.as_str());
        push(html, format_args!("<optgroup label=\"{group}\">"));
        for (instance, Intake { state, weight }) in intakes {
            let state = match state {
                IntakeState::Ready => "ready",
                IntakeState::Drain => "drained",
                IntakeState::Maintenance => "in maintenance",
            };
            push(
                html,
                format_args!(
                    "<option value=\"{instance}\">{instance}: {state}, weight {weight}</option>"
                ),
            );
        }
        html.push_str("</optgroup>");
    }
}

fn push_servers(html: &mut String, listeners: &[ListenSnapshot]) {
    for listen in listeners {
        let group = escaped(listen.name.as_str());
        push(html, format_args!("<optgroup label=\"listener {group}\">"));
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
}

fn push_form(html: &mut String, snapshot: &Snapshot, asks: Asks) {
    html.push_str("<form method=\"post\" action=\"/stats/change\">\n<label>Instance or server <select name=\"server\" required>");
    push_instances(html, &snapshot.services);
    push_servers(html, &snapshot.listeners);
    html.push_str("</select></label>\n<fieldset><legend>What is to happen</legend>");
    for (word, text) in [
        (
            "drain",
            "Drain: it finishes what it has, and only clients who stay with it by a cookie get there",
        ),
        (
            "maintenance",
            "Maintenance: it finishes what it has, and gets nothing; a server is not checked either",
        ),
        (
            "ready",
            "Ready: it serves again, as far as its checks say so",
        ),
        ("weight", "Give it this weight, of an instance in percent:"),
        (
            "reset-weight",
            "Give it its own weight: 100%, or that of the node's file",
        ),
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
    html.push_str("</fieldset>\n<label><input type=\"checkbox\" name=\"force\" value=\"yes\"> Also if no other instance of its service gets requests: then clients are answered 503</label>\n");
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
        let Target::Server(listen, server) = form.order.target else {
            panic!("{:?}", form.order);
        };
        assert_eq!(
            (listen.as_str(), server.as_str()),
            ("redis", "10.0.0.1:6379")
        );
        assert_eq!(form.order.act, Act::Weight(Some(7)));
        assert_eq!(form.token.as_deref(), Some("ab"));
        let instance = Form::parse(b"server=orders-2&action=drain&force=yes").unwrap();
        let wish = instance
            .order
            .act
            .of_instance(instance.order.last, "me".into());
        assert_eq!(
            instance.order.target,
            Target::Instance("orders-2".parse().unwrap())
        );
        assert_eq!((wish.state, wish.force), (Some(IntakeState::Drain), true));
        let act = |text: &str| Form::parse(text.as_bytes()).map(|form| form.order.act);
        let ready = "server=a/b&action=ready&token=";
        assert_eq!(act(ready), Ok(Act::Want(Wanted::Ready)));
        assert_eq!(Form::parse(ready.as_bytes()).unwrap().token, None);
        for (text, wrong) in [
            ("", Wrong::Server),
            ("server=ab&action=ready", Wrong::Server),
            ("server=Orders-2&action=ready", Wrong::Server),
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
