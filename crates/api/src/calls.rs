//! Every call of the API, one row each: the server's router, the OpenAPI document and the table in
//! `docs/api.md` are made from it, so that none of them knows a path that another does not.

use std::borrow::Cow;

use mainstay_model::routing::Farewell;
use mainstay_model::{
    Ack, BackupNews, Directory, NodePlan, NodeReport, ProblemCode, Routing, ServiceSpec, Why,
};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};

use crate::wire::{
    Accepted, Applied, Apply, Backup, DirectoryQuery, EventLine, EventsQuery, InstanceStatus,
    PlanQuery, Rollback, RoutesQuery, Scale, SecretRemoveQuery, SecretRemoved, SecretSet,
    SecretStatus, SecretValue, ServiceStatus, SetIntake, Status, WhyQuery,
};

/// A call's name; whoever answers calls matches over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each row of the table says what its call does")]
pub enum Name {
    Status,
    Services,
    Apply,
    Remove,
    Spec,
    Scale,
    Rollback,
    Pause,
    Resume,
    Promote,
    Instances,
    SetIntake,
    Secrets,
    SetSecret,
    RemoveSecret,
    OpenSecret,
    Events,
    WhyService,
    WhyInstance,
    Shutdown,
    Backup,
    OpenApi,
    WatchRoutes,
    Acknowledge,
    Farewell,
    WatchPlan,
    WatchDirectory,
    Report,
    Backups,
}

/// A method of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Only looks.
    Get,
    /// Changes something, or tells something.
    Post,
    /// Puts something in its place.
    Put,
    /// Takes something away.
    Delete,
}

/// Who may call, of those that are let in at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// On the unix socket and on the loopback port.
    Anybody,
    /// On the unix socket alone: Mainstay's own processes.
    UnixSocket,
}

/// What a call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It looks.
    Looks,
    /// It is somebody's wish, which is recorded with who had it.
    Changes,
    /// One of Mainstay's own processes tells what it saw.
    Tells,
}

/// What is answered.
#[derive(Debug, Clone, Copy)]
pub enum Answer {
    /// One JSON document.
    Whole(Form),
    /// A JSON document a line, for as long as the call goes on.
    Lines(Form),
}

/// A type that goes over the API.
#[derive(Debug, Clone, Copy)]
pub struct Form {
    name: fn() -> Cow<'static, str>,
    schema: fn(&mut SchemaGenerator) -> Schema,
}

impl Form {
    const fn of<T: JsonSchema>() -> Self {
        Self {
            name: T::schema_name,
            schema: SchemaGenerator::subschema_for::<T>,
        }
    }

    /// The type's name.
    pub fn name(self) -> String {
        (self.name)()
            .replace("Array_of_", "list of ")
            .replace("AnyValue", "OpenAPI document")
    }

    /// The names of its fields.
    pub fn fields(self) -> Vec<String> {
        let inline = SchemaSettings::draft2020_12().with(|settings| {
            settings.inline_subschemas = true;
        });
        let schema = self.schema(&mut inline.into_generator()).to_value();
        let fields = schema["properties"].as_object();
        fields
            .into_iter()
            .flatten()
            .map(|(name, _)| name.clone())
            .collect()
    }

    pub(crate) fn schema(self, generator: &mut SchemaGenerator) -> Schema {
        (self.schema)(generator)
    }
}

/// One call.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// Its name.
    pub name: Name,
    /// Its method.
    pub method: Method,
    /// Its path; `{name}` stands for the name of a service, an instance or a secret.
    pub path: &'static str,
    /// What it does, in a sentence.
    pub summary: &'static str,
    /// What may stand behind `?`.
    pub query: Option<Form>,
    /// The body that it takes.
    pub takes: Option<Form>,
    /// What it answers.
    pub gives: Answer,
    /// The refusals that are its own; [`Call::problems`] has all.
    pub own_problems: &'static [ProblemCode],
    /// Who may call.
    pub access: Access,
    /// What it does to the state.
    pub effect: Effect,
}

impl Call {
    /// A call that looks, and that anybody may make; the rows say what differs.
    const fn get(name: Name, path: &'static str, gives: Answer) -> Self {
        Self {
            name,
            method: Method::Get,
            path,
            summary: "",
            query: None,
            takes: None,
            gives,
            own_problems: &[],
            access: Access::Anybody,
            effect: Effect::Looks,
        }
    }

    const fn change(name: Name, method: Method, path: &'static str, gives: Answer) -> Self {
        Self {
            method,
            effect: Effect::Changes,
            ..Self::get(name, path, gives)
        }
    }

    /// What one of Mainstay's own processes tells.
    const fn word(name: Name, path: &'static str, takes: Form) -> Self {
        Self {
            method: Method::Post,
            takes: Some(takes),
            access: Access::UnixSocket,
            effect: Effect::Tells,
            ..Self::get(name, path, Answer::Whole(Form::of::<Accepted>()))
        }
    }

    /// A watch of one of Mainstay's own processes.
    const fn watch(name: Name, path: &'static str, query: Form, line: Form) -> Self {
        Self {
            query: Some(query),
            access: Access::UnixSocket,
            ..Self::get(name, path, Answer::Lines(line))
        }
    }

    /// Every refusal that it can give.
    pub fn problems(&self) -> Vec<ProblemCode> {
        let mut problems = ADMISSION.to_vec();
        if self.access == Access::UnixSocket {
            problems.push(ProblemCode::SocketOnly);
        }
        if self.path.contains('{') {
            problems.push(ProblemCode::NameInvalid);
        }
        if self.query.is_some() {
            problems.push(ProblemCode::QueryInvalid);
        }
        if self.takes.is_some() {
            problems.extend(BODY);
        }
        if let Answer::Lines(_) = self.gives {
            problems.push(ProblemCode::TooManyWatches);
        }
        if self.effect == Effect::Changes {
            problems.extend(WISH);
        }
        problems.extend(self.own_problems);
        problems.sort_unstable();
        problems.dedup();
        problems
    }
}

/// What any call can be refused with.
const ADMISSION: &[ProblemCode] = &[
    ProblemCode::HostMissing,
    ProblemCode::HostRefused,
    ProblemCode::OriginRefused,
    ProblemCode::TokenMissing,
    ProblemCode::TokenWrong,
    ProblemCode::AccountRefused,
    ProblemCode::StorageSlow,
    ProblemCode::CentreStopping,
    ProblemCode::InternalFault,
];

const BODY: &[ProblemCode] = &[
    ProblemCode::BodyNotJson,
    ProblemCode::FieldInvalid,
    ProblemCode::BodyTooLarge,
    ProblemCode::BodyLate,
    ProblemCode::BodyBroken,
];

/// What any change can be refused with: it must become durable.
const WISH: &[ProblemCode] = &[
    ProblemCode::StorageFull,
    ProblemCode::StorageReadOnly,
    ProblemCode::StorageFailed,
];

/// What looking at the secrets can be refused with.
const SECRETS: &[ProblemCode] = &[ProblemCode::StorageFailed];

const ACCEPTED: Answer = Answer::Whole(Form::of::<Accepted>());

/// Every call, those for people first.
pub const CALLS: &[Call] = &[
    Call {
        summary: "The whole at a glance.",
        ..Call::get(
            Name::Status,
            "/v1/status",
            Answer::Whole(Form::of::<Status>()),
        )
    },
    Call {
        summary: "The services with what is wanted and what is there.",
        ..Call::get(
            Name::Services,
            "/v1/services",
            Answer::Whole(Form::of::<Vec<ServiceStatus>>()),
        )
    },
    Call {
        summary: "Declares services; each is added, or changed if it differs.",
        takes: Some(Form::of::<Apply>()),
        own_problems: &[
            ProblemCode::ServiceDeclaredTwice,
            ProblemCode::SpecInvalid,
            ProblemCode::TooManyInstances,
            ProblemCode::AddressTaken,
            ProblemCode::AddressOutside,
            ProblemCode::RouteTaken,
            ProblemCode::NoAddressFree,
            ProblemCode::AddressedUnknown,
            ProblemCode::AddressedWithoutAddress,
            ProblemCode::NeedsUnknown,
            ProblemCode::NeedsScheduled,
            ProblemCode::NeedsItself,
            ProblemCode::NoRoom,
            ProblemCode::SecretMissing,
            ProblemCode::StoppingAll,
        ],
        ..Call::change(
            Name::Apply,
            Method::Post,
            "/v1/services",
            Answer::Whole(Form::of::<Applied>()),
        )
    },
    Call {
        summary: "Takes a service down: drains and stops its instances, then forgets it.",
        own_problems: &[ProblemCode::ServiceUnknown, ProblemCode::StoppingAll],
        ..Call::change(
            Name::Remove,
            Method::Delete,
            "/v1/services/{name}",
            ACCEPTED,
        )
    },
    Call {
        summary: "What is wanted of a service, as it would have to be declared.",
        own_problems: &[ProblemCode::ServiceUnknown],
        ..Call::get(
            Name::Spec,
            "/v1/services/{name}/spec",
            Answer::Whole(Form::of::<ServiceSpec>()),
        )
    },
    Call {
        summary: "Sets the wanted number of instances.",
        takes: Some(Form::of::<Scale>()),
        own_problems: &[
            ProblemCode::ServiceUnknown,
            ProblemCode::ServiceRemoving,
            ProblemCode::ServiceScheduled,
            ProblemCode::NoRoom,
            ProblemCode::TooManyInstances,
            ProblemCode::StoppingAll,
        ],
        ..Call::change(
            Name::Scale,
            Method::Post,
            "/v1/services/{name}/scale",
            ACCEPTED,
        )
    },
    Call {
        summary: "Goes back to an earlier version.",
        takes: Some(Form::of::<Rollback>()),
        own_problems: &[
            ProblemCode::ServiceUnknown,
            ProblemCode::ServiceRemoving,
            ProblemCode::NoEarlierVersion,
            ProblemCode::VersionUnknown,
            ProblemCode::VersionCurrent,
            ProblemCode::AddressTaken,
            ProblemCode::AddressOutside,
            ProblemCode::RouteTaken,
            ProblemCode::AddressedUnknown,
            ProblemCode::AddressedWithoutAddress,
            ProblemCode::NoAddressFree,
            ProblemCode::NeedsUnknown,
            ProblemCode::NeedsScheduled,
            ProblemCode::NeedsItself,
            ProblemCode::NoRoom,
            ProblemCode::StoppingAll,
        ],
        ..Call::change(
            Name::Rollback,
            Method::Post,
            "/v1/services/{name}/rollback",
            ACCEPTED,
        )
    },
    Call {
        summary: "Stops the rollout under way where it is.",
        own_problems: &[
            ProblemCode::ServiceUnknown,
            ProblemCode::ServiceRemoving,
            ProblemCode::NothingToPause,
        ],
        ..Call::change(
            Name::Pause,
            Method::Post,
            "/v1/services/{name}/pause",
            ACCEPTED,
        )
    },
    Call {
        summary: "Lets a paused rollout go on, or begins a failed one anew.",
        own_problems: &[
            ProblemCode::ServiceUnknown,
            ProblemCode::ServiceRemoving,
            ProblemCode::NothingToResume,
            ProblemCode::StoppingAll,
        ],
        ..Call::change(
            Name::Resume,
            Method::Post,
            "/v1/services/{name}/resume",
            ACCEPTED,
        )
    },
    Call {
        summary: "Lets the version of the canaries replace the old one.",
        own_problems: &[
            ProblemCode::ServiceUnknown,
            ProblemCode::ServiceRemoving,
            ProblemCode::NothingToPromote,
            ProblemCode::CanariesNotReady,
        ],
        ..Call::change(
            Name::Promote,
            Method::Post,
            "/v1/services/{name}/promote",
            ACCEPTED,
        )
    },
    Call {
        summary: "The instances with process, address, state and last end.",
        ..Call::get(
            Name::Instances,
            "/v1/instances",
            Answer::Whole(Form::of::<Vec<InstanceStatus>>()),
        )
    },
    Call {
        summary: "Drains an instance, ends that, or gives it another weight.",
        takes: Some(Form::of::<SetIntake>()),
        own_problems: &[
            ProblemCode::InstanceUnknown,
            ProblemCode::InstanceUnrouted,
            ProblemCode::InstanceLeaving,
            ProblemCode::InstanceLast,
        ],
        ..Call::change(
            Name::SetIntake,
            Method::Put,
            "/v1/instances/{name}/intake",
            ACCEPTED,
        )
    },
    Call {
        summary: "The secrets with revision and users; their values are never shown.",
        own_problems: SECRETS,
        ..Call::get(
            Name::Secrets,
            "/v1/secrets",
            Answer::Whole(Form::of::<Vec<SecretStatus>>()),
        )
    },
    Call {
        summary: "Sets a secret. Instances take the value at their next start.",
        takes: Some(Form::of::<SecretValue>()),
        own_problems: &[
            ProblemCode::SecretInvalid,
            ProblemCode::SecretLocked,
            ProblemCode::TooManySecrets,
        ],
        ..Call::change(
            Name::SetSecret,
            Method::Put,
            "/v1/secrets/{name}",
            Answer::Whole(Form::of::<SecretSet>()),
        )
    },
    Call {
        summary: "Removes a secret.",
        query: Some(Form::of::<SecretRemoveQuery>()),
        own_problems: &[ProblemCode::SecretUnknown, ProblemCode::SecretInUse],
        ..Call::change(
            Name::RemoveSecret,
            Method::Delete,
            "/v1/secrets/{name}",
            Answer::Whole(Form::of::<SecretRemoved>()),
        )
    },
    Call {
        summary: "For agents: the value of a secret, for a program that is to start.",
        access: Access::UnixSocket,
        own_problems: &[
            ProblemCode::SecretUnknown,
            ProblemCode::SecretLocked,
            ProblemCode::StorageFailed,
        ],
        ..Call::get(
            Name::OpenSecret,
            "/v1/secrets/{name}/value",
            Answer::Whole(Form::of::<SecretValue>()),
        )
    },
    Call {
        summary: "What happened behind a number, and with `follow` what happens.",
        query: Some(Form::of::<EventsQuery>()),
        ..Call::get(
            Name::Events,
            "/v1/events",
            Answer::Lines(Form::of::<EventLine>()),
        )
    },
    Call {
        summary: "Why a service is as it is, or was at a moment: the decisions, the newest first.",
        query: Some(Form::of::<WhyQuery>()),
        own_problems: &[ProblemCode::ServiceUnknown],
        ..Call::get(
            Name::WhyService,
            "/v1/why/services/{name}",
            Answer::Whole(Form::of::<Why>()),
        )
    },
    Call {
        summary: "Why an instance is as it is: the decisions, the newest first.",
        own_problems: &[ProblemCode::InstanceUnknown],
        ..Call::get(
            Name::WhyInstance,
            "/v1/why/instances/{name}",
            Answer::Whole(Form::of::<Why>()),
        )
    },
    Call {
        summary: "Drains and stops everything; what was declared is kept for the next start.",
        own_problems: &[ProblemCode::StoppingAll],
        ..Call::change(Name::Shutdown, Method::Post, "/v1/shutdown", ACCEPTED)
    },
    Call {
        summary: "Copies the control centre's state, as of one moment, to a new file in the state \
                  directory; `mainstay backup` takes it from there.",
        access: Access::UnixSocket,
        ..Call::change(
            Name::Backup,
            Method::Post,
            "/v1/backup",
            Answer::Whole(Form::of::<Backup>()),
        )
    },
    Call {
        summary: "This description of the API.",
        ..Call::get(
            Name::OpenApi,
            "/v1/openapi.json",
            Answer::Whole(Form::of::<serde_json::Value>()),
        )
    },
    Call {
        summary: "For gateways: who may receive traffic, whole, at once and on each change. Whoever \
                  follows is waited for.",
        own_problems: &[
            ProblemCode::ConsumerNameInvalid,
            ProblemCode::TooManyConsumers,
        ],
        ..Call::watch(
            Name::WatchRoutes,
            "/v1/watch/routes",
            Form::of::<RoutesQuery>(),
            Form::of::<Routing>(),
        )
    },
    Call {
        summary: "For gateways: a generation is in force. May be sent any number of times.",
        own_problems: &[
            ProblemCode::ConsumerNameInvalid,
            ProblemCode::TooManyConsumers,
        ],
        ..Call::word(Name::Acknowledge, "/v1/consumers/ack", Form::of::<Ack>())
    },
    Call {
        summary: "For gateways: it sends no more, nobody need wait for it.",
        own_problems: &[ProblemCode::ConsumerNameInvalid],
        ..Call::word(
            Name::Farewell,
            "/v1/consumers/farewell",
            Form::of::<Farewell>(),
        )
    },
    Call {
        summary: "For agents: what their node is to run, whole, at once and on each change.",
        own_problems: &[ProblemCode::NodeUnknown],
        ..Call::watch(
            Name::WatchPlan,
            "/v1/watch/plan",
            Form::of::<PlanQuery>(),
            Form::of::<NodePlan>(),
        )
    },
    Call {
        summary: "For those who answer for names: where services are found, whole, at once and on each \
                  change. Nobody waits for whoever follows.",
        ..Call::watch(
            Name::WatchDirectory,
            "/v1/watch/directory",
            Form::of::<DirectoryQuery>(),
            Form::of::<Directory>(),
        )
    },
    Call {
        summary: "For agents: all that they see on their node.",
        own_problems: &[ProblemCode::NodeUnknown],
        ..Call::word(Name::Report, "/v1/nodes/report", Form::of::<NodeReport>())
    },
    Call {
        summary: "For supervisors: how the backups of their node stand, when that has changed.",
        ..Call::word(Name::Backups, "/v1/nodes/backups", Form::of::<BackupNews>())
    },
];

/// The table of calls as it stands in `docs/api.md`.
pub fn table() -> String {
    let mut rows = vec![
        "| Method, path | What | Body | Answer | Who |".to_owned(),
        "|---|---|---|---|---|".to_owned(),
    ];
    for call in CALLS {
        let query = call.query.map(|query| query.fields().join("&"));
        let query = query.map_or(String::new(), |fields| format!("?{fields}"));
        let answer = match call.gives {
            Answer::Whole(form) => form.name(),
            Answer::Lines(form) => format!("lines of {}", form.name()),
        };
        let who = match call.access {
            Access::Anybody => "users",
            Access::UnixSocket => "own processes",
        };
        rows.push(format!(
            "| {} `{}{query}` | {} | {} | {answer} | {who} |",
            call.method.as_str(),
            call.path,
            call.summary,
            call.takes.map(Form::name).unwrap_or_default(),
        ));
    }
    rows.push(String::new());
    rows.join("\n")
}

impl Method {
    /// As it stands in a request.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_call_has_a_sentence_and_no_two_share_a_name_or_a_path() {
        let names: BTreeSet<Name> = CALLS.iter().map(|call| call.name).collect();
        let places: BTreeSet<_> = CALLS
            .iter()
            .map(|call| (call.path, call.method.as_str()))
            .collect();
        assert_eq!((names.len(), places.len()), (CALLS.len(), CALLS.len()));
        for call in CALLS {
            assert!(call.summary.ends_with('.'), "{}", call.path);
        }
    }
}
