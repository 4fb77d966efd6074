//! `mainstay drain`, `undrain` and `weight`: which requests an instance gets, as people want it.

use mainstay_api::wire::{Accepted, InstanceStatus, SetIntake};
use mainstay_ids::InstanceId;
use mainstay_model::{IntakeState, Weight};

use super::{client, tell_notes};
use crate::arguments::Place;
use crate::outcome::Outcome;
use crate::output;

/// Whether requests may be taken from the last instance that gets them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LastOne {
    Refuse,
    Take,
}

impl From<bool> for LastOne {
    /// What `--force` says.
    fn from(force: bool) -> Self {
        if force { Self::Take } else { Self::Refuse }
    }
}

/// Drains an instance, or ends that. It is in the routes when this returns.
pub(crate) async fn drain(
    place: &Place,
    instance: InstanceId,
    maintenance: bool,
    last: LastOne,
) -> anyhow::Result<Outcome> {
    let state = if maintenance {
        IntakeState::Maintenance
    } else {
        IntakeState::Drain
    };
    set_state(place, instance, state, last).await
}

pub(crate) async fn set_state(
    place: &Place,
    instance: InstanceId,
    state: IntakeState,
    last: LastOne,
) -> anyhow::Result<Outcome> {
    let wish = SetIntake {
        state: Some(state),
        force: last == LastOne::Take,
        ..SetIntake::default()
    };
    set(place, instance, wish).await
}

/// Gives an instance another weight.
pub(crate) async fn set_weight(
    place: &Place,
    instance: InstanceId,
    weight: Weight,
    last: LastOne,
) -> anyhow::Result<Outcome> {
    let wish = SetIntake {
        weight: Some(weight),
        force: last == LastOne::Take,
        ..SetIntake::default()
    };
    set(place, instance, wish).await
}

async fn set(place: &Place, instance: InstanceId, wish: SetIntake) -> anyhow::Result<Outcome> {
    let client = client(place);
    let path = format!("/v1/instances/{instance}/intake");
    let accepted: Accepted = client.put(&path, &wish).await?;
    if place.json {
        output::json(&accepted)?;
        return Ok(Outcome::Holds);
    }
    tell_notes(&accepted.notes);
    let instances: Vec<InstanceStatus> = client.get("/v1/instances").await?;
    if let Some(status) = instances.iter().find(|one| one.instance == instance) {
        output::tell(format_args!("{instance} {}", status.intake));
    }
    Ok(Outcome::Holds)
}
