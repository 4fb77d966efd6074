//! What there is to be seen: the services and instances that the newest table names, and those that
//! still finish requests. The coordinator publishes it to whoever shows statistics.

use std::net::SocketAddr;
use std::sync::Arc;

use mainstay_ids::Generation;

use crate::endpoint::EndpointState;
use crate::table::Table;

/// One state of all services, with the counters of each.
#[derive(Debug, Clone)]
pub(crate) struct Roster {
    /// The newest table.
    pub(crate) table: Arc<Table>,
    /// The newest generation that is in force in every worker; `None` before the first.
    pub(crate) acknowledged: Option<Generation>,
    /// Endpoints that the newest table does not name.
    pub(crate) draining: Vec<Arc<EndpointState>>,
    /// Service addresses on which nobody could listen.
    pub(crate) unbound: Vec<SocketAddr>,
}
