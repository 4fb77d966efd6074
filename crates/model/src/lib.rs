//! What the program holds: checked specifications, and the values that Mainstay's processes send
//! to one another.
//!
//! Nothing here knows a file format, a socket or a clock, and nothing here decides. What a user
//! typed becomes a [`ServiceSpec`] in `mainstay-api`; what happens with one is decided in
//! `mainstay-control`. Start reading at [`service`], then [`routing`] (control centre to gateway),
//! [`plan`] and [`report`] (control centre to agent and back), [`event`] (told to people).
#![no_std]

extern crate alloc;

pub mod backup;
pub mod cron;
pub mod difference;
pub mod directory;
pub mod event;
pub mod forward;
pub mod gateway;
pub mod happening;
pub mod intake;
pub mod limits;
pub mod listen;
pub mod network;
pub mod outlook;
pub mod plan;
pub mod problem;
pub mod report;
pub mod rewrite;
pub mod route;
pub mod routing;
pub mod seams;
pub mod secret;
pub mod service;
pub mod share;
pub mod status;
pub mod template;
pub mod traffic;
pub mod vip;
pub mod why;

pub use backup::BackupNews;
pub use cron::Cron;
pub use difference::{Difference, differences};
pub use directory::{Directory, Listed, Listing};
pub use event::{Event, EventKind};
pub use forward::ForwardSettings;
pub use gateway::GatewayLimits;
pub use happening::{Happened, Happening, Happenings};
pub use intake::{Intake, IntakeState, Weight};
pub use listen::ListenSpec;
pub use network::Network;
pub use outlook::{MemoryOutlook, NeedOutlook, Outlook, RolloutOutlook, ServiceOutlook};
pub use plan::{NodePlan, PlannedAction, PlannedInstance};
pub use problem::ProblemCode;
pub use report::{
    BootId, Capacity, Exit, InstanceReport, NodeReport, Phase, ProbedHealth, StartFailure,
};
pub use route::{HostName, HostPattern, HttpMatch, HttpMatches, PathPrefix};
pub use routing::{Ack, Endpoint, InFlight, Routing, ServiceRoutes};
pub use service::ServiceSpec;
pub use share::Share;
pub use status::{InstanceState, ServiceState};
pub use template::Template;
pub use traffic::Traffic;
pub use vip::VipSpec;
pub use why::{Reason, Topic, Why};
