//! What the table has, for whoever did not make it.

use mainstay_kernel::netlink::Socket;
use mainstay_kernel::netlink::nft::{Family, Name};

use super::elements::{self, Present};
use super::{missing, refused};
use mainstay_model::forward::BackEndKind;

use crate::back_end::ForwardError;
use crate::reading::{Reading, ServiceReading};

/// Reads the table of this thread's network namespace; `None` if there is none. Slow with very many
/// services, and no part of any change.
pub fn read(table: &Name) -> Result<Option<Reading>, ForwardError> {
    let socket = Socket::open().map_err(missing)?;
    let Some(listing) = socket.list_table(Family::Inet, table).map_err(missing)? else {
        return Ok(None);
    };
    let present = Present::read(table, &socket).map_err(refused)?;
    let connections = elements::connections(table, &socket).map_err(refused)?;
    // Without counting there are no sets of it.
    let traffic = elements::traffic(table, &socket).unwrap_or_default();
    let services = present.services().into_iter().map(|(address, slots)| {
        let counted = connections.binary_search_by_key(&address, |(address, _)| *address);
        ServiceReading {
            address,
            slots,
            connections: counted.map_or(0, |index| connections[index].1),
        }
    });
    Ok(Some(Reading {
        back_end: BackEndKind::Nft,
        dormant: listing.dormant,
        altered: Vec::new(),
        services: services.collect(),
        dead: present.dead(),
        traffic: traffic.into_iter().collect(),
    }))
}
