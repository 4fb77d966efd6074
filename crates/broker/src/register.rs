//! Users, virtual hosts and permissions as operators change them.

use std::rc::Rc;

use mainstay_journal::messages::Change;
use tokio::sync::oneshot;

use crate::accounts::{Permission, User};
use crate::host::Call;
use crate::house::House;
use crate::limits::{REMOVED_AT_ONCE, VHOSTS_MAX};
use crate::opening::new_broker;
use crate::record;
use crate::view::Answer;
use crate::writer::Order;

pub(crate) fn no_vhost(name: &str) -> String {
    format!("there is no virtual host `{name}`")
}

/// Writes changes of accounts; they are on disk when this returns.
async fn define(house: &House, changes: Vec<Change>) -> Result<(), String> {
    let (to, done) = oneshot::channel();
    order(house, Order::Define(changes, to), done).await
}

/// The same for what only takes away. It needs no room, and makes some.
async fn remove(house: &House, changes: Vec<Change>) -> Result<(), String> {
    let (to, done) = oneshot::channel();
    order(house, Order::Remove(changes, to), done).await
}

async fn order(house: &House, order: Order, done: oneshot::Receiver<()>) -> Result<(), String> {
    let gone = || "the broker ends".to_owned();
    let orders = house.orders();
    orders.send(order).await.map_err(|_| gone())?;
    done.await.map_err(|_| gone())
}

/// Sets a user. Known at once, so that its removal, which may be asked for meanwhile, comes after it here and in the log.
pub(crate) async fn set_user(house: &House, name: &str, user: User) -> Result<Answer, String> {
    let change = record::put_user(name, &user);
    house
        .accounts
        .borrow_mut()
        .users
        .insert(name.to_owned(), user);
    define(house, vec![change]).await?;
    Ok(Answer::Done { messages: 0 })
}

/// A user goes, and with it its connections. It comes in nowhere any more before that is on disk.
pub(crate) async fn remove_user(house: &Rc<House>, name: &str) -> Result<Answer, String> {
    let mut changes = vec![record::remove_user(name)];
    let mut vhosts = Vec::new();
    {
        let accounts = &mut *house.accounts.borrow_mut();
        if accounts.users.remove(name).is_none() {
            return Err(format!("there is no user `{name}`"));
        }
        let of_user = |(_, user): &(String, String), _: &mut Permission| user == name;
        for ((vhost, user), _) in accounts.permissions.extract_if(.., of_user) {
            changes.push(record::remove_permission(&vhost, &user));
            vhosts.push(vhost);
        }
    }
    for vhost in &vhosts {
        tell(house, vhost, name);
    }
    remove(house, changes).await?;
    let why = format!("user '{name}' is deleted");
    house.shut_those(&why, |home| home.user == name);
    tracing::info!(name, "a user is deleted");
    Ok(Answer::Done { messages: 0 })
}

/// What a user may in a virtual host, on connections that are there, too.
pub(crate) async fn permit(
    house: &Rc<House>,
    vhost: &str,
    user: &str,
    permission: Permission,
) -> Result<Answer, String> {
    permission.compile().map_err(|error| error.to_string())?;
    let change = record::put_permission(vhost, user, &permission);
    {
        let accounts = &mut *house.accounts.borrow_mut();
        if !house.hosts.borrow().contains_key(vhost) {
            return Err(no_vhost(vhost));
        }
        if !accounts.users.contains_key(user) {
            return Err(format!("there is no user `{user}`"));
        }
        // At once, so that whoever deletes the user or the virtual host meanwhile finds it.
        let at = (vhost.to_owned(), user.to_owned());
        accounts.permissions.insert(at, permission);
    }
    define(house, vec![change]).await?;
    tell(house, vhost, user);
    Ok(Answer::Done { messages: 0 })
}

/// Tells a virtual host that a user may something else there. Not waiting for room, so that nothing comes between a change in
/// memory and its order to the log; of callers there are a few at a time.
fn tell(house: &House, vhost: &str, user: &str) {
    if let Some(host) = house.hosts.borrow().get(vhost) {
        host.put(Call::Permitted(user.to_owned()));
    }
}

pub(crate) async fn add_vhost(house: &Rc<House>, name: &str) -> Result<Answer, String> {
    let number = {
        let mut accounts = house.accounts.borrow_mut();
        if accounts.vhosts.contains_key(name) {
            if house.hosts.borrow().contains_key(name) {
                return Ok(Answer::Done { messages: 0 });
            }
            return Err(format!(
                "virtual host `{name}` is being made or deleted; ask again in a moment"
            ));
        }
        if accounts.vhosts.len() >= VHOSTS_MAX {
            return Err(format!(
                "there are {VHOSTS_MAX} virtual hosts, which is as many as there may be"
            ));
        }
        let number = accounts.free_number().ok_or("there is no number left")?;
        // At once, so that nobody else gets the number while it is being written.
        accounts.vhosts.insert(name.to_owned(), number);
        number
    };
    define(house, vec![record::put_vhost(name, number)]).await?;
    let broker = new_broker(name, house.clients).map_err(|error| error.to_string())?;
    house.take_in(name, number, broker);
    Ok(Answer::Done { messages: 0 })
}

/// Deletes a virtual host with all that is in it. Its own record goes first: a broker that is killed in the middle has all
/// of it, or throws the rest away when it reads its log. Its clients are told when it is gone for ever.
pub(crate) async fn remove_vhost(house: &Rc<House>, name: &str) -> Result<Answer, String> {
    // Nobody comes in any more, nor does any other call find it.
    let host = house.hosts.borrow_mut().remove(name);
    let host = host.ok_or_else(|| no_vhost(name))?;
    let (to, undone) = oneshot::channel();
    host.send(Call::Abandon(to)).await;
    let undone = undone.await.map_err(|_| "the broker ends".to_owned())?;
    let mut changes = vec![record::remove_vhost(name)];
    {
        let permissions = &mut house.accounts.borrow_mut().permissions;
        for ((vhost, user), _) in permissions.extract_if(.., |(vhost, _), _| vhost == name) {
            changes.push(record::remove_permission(&vhost, &user));
        }
    }
    changes.extend(undone);
    for some in changes.chunks(REMOVED_AT_ONCE) {
        remove(house, some.to_vec()).await?;
    }
    // Nobody got its number while something of it was on its way to the log.
    house.accounts.borrow_mut().vhosts.remove(name);
    host.close();
    let why = format!("vhost '{name}' is deleted");
    house.shut_those(&why, |home| home.vhost == name);
    tracing::info!(name, "a virtual host is deleted");
    Ok(Answer::Done { messages: 0 })
}
