//! Who asks: a unix socket in the state directory, one line of JSON each way.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use crate::accounts::{PasswordHash, Permission, User};
use crate::alarm::resident;
use crate::backup;
use crate::definitions::{Form, form, policy};
use crate::desk::{Question, Told};
use crate::host::Call;
use crate::house::House;
use crate::measures;
use crate::register::{add_vhost, no_vhost, permit, remove_user, remove_vhost, set_user};
use crate::view::{Answer, Ask, Counters, SOCKET, Status, Tls};

/// Callers at once: people and scripts. More wait in the kernel's queue.
const CALLERS_MAX: usize = 16;
/// The longest line: definitions with 100,000 queues, or a message as base64.
const LINE_LEN_MAX: u64 = 192 * 1024 * 1024;
/// How long a caller may take to say its line, and to take the answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Listens in the state directory, for its owner alone. What an earlier process left there is replaced.
pub(crate) fn listen(state: &Path) -> io::Result<UnixListener> {
    let path = state.join(SOCKET);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers until it is dropped.
pub(crate) async fn serve(house: Rc<House>, listener: UnixListener) {
    let room = Arc::new(Semaphore::new(CALLERS_MAX));
    loop {
        // It is never closed.
        let place = Arc::clone(&room).acquire_owned().await.ok();
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(crate::limits::ACCEPT_PAUSE).await;
            continue;
        };
        let house = Rc::clone(&house);
        // It ends by itself in a minute at most, with its caller, or with us.
        tokio::task::spawn_local(async move {
            let _place = place;
            if let Err(error) = one(&house, stream).await {
                tracing::debug!(%error, "a caller went away");
            }
        });
    }
}

async fn one(house: &Rc<House>, stream: UnixStream) -> io::Result<()> {
    let mut line = String::new();
    let mut stream = BufReader::new(stream);
    let mut limited = (&mut stream).take(LINE_LEN_MAX);
    timeout(PATIENCE, limited.read_line(&mut line)).await??;
    let answer = match serde_json::from_str(&line) {
        Ok(ask) => {
            // It has said its line: nothing but its end comes of it.
            let gone = async { drop(stream.read_u8().await) };
            let answered = answer(house, ask, gone).await;
            answered.unwrap_or_else(|why| Answer::Refused { why })
        }
        Err(error) => Answer::Refused {
            why: format!("the call cannot be read: {error}"),
        },
    };
    let mut line = serde_json::to_vec(&answer).map_err(io::Error::other)?;
    line.push(b'\n');
    timeout(PATIENCE, stream.get_mut().write_all(&line)).await?
}

/// `gone` is over when the caller is.
async fn answer(
    house: &Rc<House>,
    ask: Ask,
    gone: impl Future<Output = ()>,
) -> Result<Answer, String> {
    match ask {
        Ask::Backup { to } => backup::copy(house, to, gone).await,
        Ask::Status => Ok(Answer::Status(Box::new(status(house)))),
        Ask::Metrics => Ok(Answer::Metrics {
            text: measures::text(house).await?,
        }),
        Ask::Queues { vhost } => {
            let mut queues = Vec::new();
            for name in vhosts(house, vhost)? {
                if let Told::Queues(more) = question(house, &name, Question::Queues).await? {
                    queues.extend(more);
                }
            }
            Ok(Answer::Queues { queues })
        }
        Ask::Policies { vhost } => {
            let mut policies = Vec::new();
            for name in vhosts(house, vhost)? {
                if let Told::Policies(more) = question(house, &name, Question::Policies).await? {
                    policies.extend(more);
                }
            }
            Ok(Answer::Policies { policies })
        }
        Ask::SetPolicy { policy: said } => {
            let set = Question::SetPolicy(policy(&said)?);
            asked(house, &said.vhost, set).await
        }
        Ask::RemovePolicy { vhost, name } => {
            asked(house, &vhost, Question::RemovePolicy(name)).await
        }
        Ask::Vhost { vhost, deed } => asked(house, &vhost, Question::Deed(deed)).await,
        Ask::Export => export(house).await,
        Ask::Import { definitions } => import(house, definitions).await,
        Ask::AddVhost { name } => add_vhost(house, &name).await,
        Ask::RemoveVhost { name } => remove_vhost(house, &name).await,
        Ask::SetUser { name, password } => {
            let hashed =
                tokio::task::spawn_blocking(move || PasswordHash::of(password.as_bytes())).await;
            let hashed = hashed.map_err(|error| error.to_string())?;
            let password = Some(hashed.map_err(|error| error.to_string())?);
            let known = house.accounts.borrow().users.get(&name).cloned();
            let tags = known.map(|user| user.tags).unwrap_or_default();
            set_user(house, &name, User { password, tags }).await
        }
        Ask::RemoveUser { name } => remove_user(house, &name).await,
        Ask::Permit {
            user,
            vhost,
            configure,
            write,
            read,
        } => {
            let permission = Permission {
                configure,
                write,
                read,
            };
            permit(house, &vhost, &user, permission).await
        }
    }
}

/// What a virtual host answers, handed on.
async fn asked(house: &House, vhost: &str, what: Question) -> Result<Answer, String> {
    match question(house, vhost, what).await? {
        Told::Messages(shown) => {
            let mut messages = Vec::with_capacity(shown.len());
            for one in shown {
                messages.push(one.read(&house.reader).await?);
            }
            Ok(Answer::Messages { messages })
        }
        Told::Done(messages) => Ok(Answer::Done { messages }),
        Told::Queues(queues) => Ok(Answer::Queues { queues }),
        Told::Policies(policies) => Ok(Answer::Policies { policies }),
        Told::Refused(why) => Err(why),
        Told::Measured(_) | Told::Definitions(_) => {
            Err("the answer is that to another call".to_owned())
        }
    }
}

fn status(house: &House) -> Status {
    use std::sync::atomic::Ordering::Relaxed;
    let (metrics, gauges) = (&house.metrics, &house.gauges);
    Status {
        connections: house.connections.borrow().len(),
        connections_max: house.room.connections,
        tls: Tls {
            connections: house.tls.connections.get(),
            refused: house.tls.refused.get(),
            refused_last: house.tls.last.borrow().clone(),
            problem: house.tls.problem.borrow().clone(),
        },
        alarm: house.alarm().map(str::to_owned),
        memory: resident().unwrap_or(0),
        on_disk: gauges.on_disk.load(Relaxed),
        live: gauges.live.load(Relaxed),
        counters: Counters {
            connections: metrics.connections.get(),
            logins_refused: metrics.logins_refused.get(),
            published: metrics.published.get(),
            confirmed: metrics.confirmed.get(),
            delivered: metrics.delivered.get(),
            acknowledged: metrics.acknowledged.get(),
            returned: metrics.returned.get(),
            bodies_read: metrics.bodies_read.get(),
            bodies_waited_for: metrics.bodies_waited_for.get(),
            read_bytes: metrics.read_bytes.get(),
            written_bytes: metrics.written_bytes.get(),
            syncs: gauges.syncs.load(Relaxed),
            records: gauges.records.load(Relaxed),
        },
    }
}

pub(crate) fn vhosts(house: &House, only: Option<String>) -> Result<Vec<String>, String> {
    let hosts = house.hosts.borrow();
    match only {
        None => Ok(hosts.keys().cloned().collect()),
        Some(name) if hosts.contains_key(&name) => Ok(vec![name]),
        Some(name) => Err(no_vhost(&name)),
    }
}

pub(crate) async fn question(
    house: &House,
    vhost: &str,
    question: Question,
) -> Result<Told, String> {
    let host = house.hosts.borrow().get(vhost).cloned();
    let host = host.ok_or_else(|| no_vhost(vhost))?;
    let (to, told) = oneshot::channel();
    host.send(Call::Ask(question, to)).await;
    told.await
        .map_err(|_| format!("virtual host `{vhost}` ended while it was asked"))
}

async fn export(house: &House) -> Result<Answer, String> {
    let mut declared = Vec::new();
    for name in vhosts(house, None)? {
        if let Told::Definitions(definitions) =
            question(house, &name, Question::Definitions).await?
        {
            declared.push((name, definitions));
        }
    }
    let definitions = form(&house.accounts.borrow(), &declared);
    Ok(Answer::Definitions { definitions })
}

/// All is read before anything is done. Then one part after the other: what was done before an error stays.
async fn import(house: &Rc<House>, definitions: serde_json::Value) -> Result<Answer, String> {
    let form: Form = serde_json::from_value(definitions)
        .map_err(|why| format!("these are no definitions of RabbitMQ: {why}"))?;
    let users = form
        .users
        .iter()
        .map(|one| Ok((one.name.clone(), one.user()?)));
    let users = users.collect::<Result<Vec<_>, String>>()?;
    for one in &form.permissions {
        one.permission
            .compile()
            .map_err(|error| error.to_string())?;
    }
    let mut declared = Vec::new();
    for vhost in form.inhabited() {
        declared.push((vhost.to_owned(), form.of(vhost)?));
    }
    for vhost in &form.vhosts {
        add_vhost(house, &vhost.name).await?;
    }
    for (name, user) in users {
        let known = house.accounts.borrow().users.get(&name).cloned();
        // Our own hash does not go out, so that what was exported here has none.
        let password = user
            .password
            .or_else(|| known.and_then(|known| known.password));
        set_user(house, &name, User { password, ..user }).await?;
    }
    for one in form.permissions {
        permit(house, &one.vhost, &one.user, one.permission).await?;
    }
    for (vhost, definitions) in declared {
        match question(house, &vhost, Question::Import(definitions)).await? {
            Told::Refused(why) => return Err(why),
            Told::Done(_)
            | Told::Queues(_)
            | Told::Measured(_)
            | Told::Definitions(_)
            | Told::Policies(_)
            | Told::Messages(_) => {}
        }
    }
    Ok(Answer::Done { messages: 0 })
}
