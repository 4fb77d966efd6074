//! One request, as the gateway's access log tells of it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use mainstay_ids::{InstanceId, ServiceName, Timestamp};
use serde::{Deserialize, Serialize};

use crate::arguments::Place;
use crate::outcome::{Failure, Outcome};

/// How much of one file is read: twice the size at which the gateway sets it aside, so that a search
/// ends however large somebody made it.
const FILE_READ_MAX: u64 = 128 * 1024 * 1024;

/// How long a line that is not there is waited for. The gateway hands lines over twice a second.
const WRITTEN_WITHIN: Duration = Duration::from_secs(2);

/// The time between two looks.
const POLL: Duration = Duration::from_millis(200);

/// One line of the access log; `docs/gateway.md` says what its fields mean.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Request {
    time: String,
    id: String,
    client: String,
    method: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    path: String,
    /// Missing in lines of earlier versions, and where no service has the host and path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    service: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
    /// The listener to whose servers it went, instead of a service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    listen: Option<String>,
    /// Which of them was asked last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    server: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    status: u16,
    tries: u32,
    bytes: u64,
    us: u64,
}

/// Finds the newest request with this id.
pub(crate) async fn find(place: &Place, id: &str) -> anyhow::Result<Request> {
    let log = place.state.join("logs").join("access.log");
    let older = place.state.join("logs").join("access.log.1");
    let began = Instant::now();
    loop {
        for path in [&log, &older] {
            let found = search(path, id)
                .with_context(|| format!("cannot search the access log `{}`", path.display()))?;
            if let Some(request) = found {
                return Ok(request);
            }
        }
        if began.elapsed() >= WRITTEN_WITHIN {
            break;
        }
        tokio::time::sleep(POLL).await;
    }
    let message = if log.exists() {
        format!(
            "no request `{id}` is in `{}` or its predecessor",
            log.display()
        )
    } else {
        format!("there is no access log `{}`", log.display())
    };
    let remedy = "the id is in the answer's header `x-request-id`; the log holds the newest 64 to 128 MiB, \
                  and nothing with `dev --access-log off`";
    Err(Failure::new(Outcome::DoesNotHold, message)
        .remedy(remedy)
        .into())
}

/// The newest line of a file with this id; `None` also if there is no such file.
fn search(path: &Path, id: &str) -> io::Result<Option<Request>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    // As it is written: quotes inside of other fields are escaped, so that it is found nowhere else.
    let needle = format!("\"id\":{}", serde_json::Value::from(id));
    let mut lines = BufReader::with_capacity(256 * 1024, file.take(FILE_READ_MAX));
    let mut line = Vec::new();
    let mut newest = None;
    while lines.read_until(b'\n', &mut line)? > 0 {
        if std::str::from_utf8(&line).is_ok_and(|text| text.contains(&needle))
            && let Ok(request) = serde_json::from_slice::<Request>(&line)
            && request.id == id
        {
            newest = Some(request);
        }
        line.clear();
    }
    Ok(newest)
}

impl Request {
    /// The service to which it belonged.
    pub(crate) fn service_name(&self) -> Option<ServiceName> {
        let instance = self.instance.as_ref();
        let of_instance = || instance?.parse::<InstanceId>().ok().map(|id| id.service);
        let named = self.service.as_ref();
        let named = named.and_then(|name| ServiceName::parse(name).ok());
        named.or_else(of_instance)
    }

    /// When it was answered.
    pub(crate) fn ended(&self) -> Timestamp {
        let began = Timestamp::parse(&self.time).unwrap_or_default();
        Timestamp(began.0 + self.us.div_ceil(1000))
    }

    fn of_listener(&self) -> String {
        match (&self.listen, &self.server) {
            (Some(listen), Some(server)) => {
                format!("{server} of the listener {listen} was asked last")
            }
            (Some(listen), None) => format!("no server of the listener {listen} was asked"),
            (None, _) => "it belonged to no service".to_owned(),
        }
    }

    /// What became of it.
    pub(crate) fn sentence(&self) -> String {
        let Self {
            time,
            method,
            path,
            status,
            tries,
            us,
            ..
        } = self;
        let host = self.host.as_deref().unwrap_or("no host");
        let who = match (&self.service, &self.instance) {
            (_, Some(instance)) => format!("{instance} was asked last"),
            (Some(service), None) => format!("no instance of {service} was asked"),
            (None, None) => self.of_listener(),
        };
        let why = match &self.reason {
            Some(reason) => format!("the gateway refused it as `{reason}`: {}", meaning(reason)),
            None if *status == 499 => "the client went away before its answer".to_owned(),
            None if *status >= 500 => "this is the instance's own answer".to_owned(),
            None => "the instance answered".to_owned(),
        };
        let ms = us.div_ceil(1000);
        let tries = match tries {
            1 => "1 try".to_owned(),
            many => format!("{many} tries"),
        };
        format!(
            "{time}  {method} {path} ({host}) got {status} after {ms} ms: {why}; {who}, {tries}"
        )
    }
}

/// What a reason of the gateway means; `mainstay explain` tells more.
fn meaning(reason: &str) -> &'static str {
    match reason {
        "bad-request" => "the request itself is wrong",
        "no-route" => "no service has its host and path",
        "starting" => "no instance was healthy for the second that it waited",
        "crash-looping" => "every instance ended soon after its start",
        "scaled-to-zero" => "no instance was wanted",
        "drained" => "every instance was drained, as somebody asked",
        "stopping" => "the service was being taken down",
        "no-endpoint" => "there was no instance for the second that it waited",
        "all-failed" => "not one instance accepted a connection",
        "lost-in-flight" => {
            "the connection to the instance broke, and to send it again could do twice what it asks for"
        }
        "response-timeout" => "the instance did not begin to answer in time",
        "bad-upgrade" => "the instance changed the protocol without being asked",
        _ => "see `mainstay explain` with this word",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_testkit::TempDir;

    fn line(id: &str, path: &str, status: u16) -> String {
        format!(
            "{{\"time\":\"2026-11-23T11:16:02.172Z\",\"id\":\"{id}\",\"client\":\"::1\",\"method\":\"GET\",\
             \"path\":\"{path}\",\"service\":\"orders\",\"reason\":\"starting\",\"status\":{status},\
             \"tries\":0,\"bytes\":1,\"us\":1500}}\n"
        )
    }

    #[test]
    fn the_newest_line_with_the_id_is_found_and_no_text_that_only_looks_like_it() {
        let dir = TempDir::new("requests");
        let log = dir.join("access.log");
        let text = [
            line("a", "/", 503),
            line("b", "/\\\"id\\\":\\\"a\\\"", 200),
            line("a", "/", 504),
            "{\"id\":\"a\",\"torn".to_owned(),
        ];
        std::fs::write(&log, text.concat()).expect("writes");
        let found = search(&log, "a").expect("reads").expect("is there");
        assert_eq!(found.status, 504);
        assert_eq!(found.service_name().expect("has one").as_str(), "orders");
        let ended = found.ended().to_string();
        assert_eq!(ended, "2026-11-23T11:16:02.174Z");
        assert_eq!(search(&log, "c").expect("reads"), None);
        assert_eq!(search(&dir.join("none"), "a").expect("reads"), None);
    }

    #[test]
    fn a_request_to_a_listener_belongs_to_no_service_and_names_its_server() {
        let text = r#"{"time":"2026-11-23T11:16:02.172Z","id":"a","client":"::1","method":"GET","path":"/","listen":"web","server":"10.0.0.1:80","status":200,"tries":1,"bytes":1,"us":1500}"#;
        let request: Request = serde_json::from_str(text).expect("it is a line");
        assert_eq!(request.service_name(), None);
        let told = request.sentence();
        let expected = "10.0.0.1:80 of the listener web was asked last";
        assert!(told.contains(expected), "{told}");
    }
}
