//! Delayed messages over the wire, as a program of somebody else's publishes them, through deaths of the broker.
//! RabbitMQ needs a plugin for them, which Debian does not have: what that does is written in `delays.py`.

mod alone;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use alone::{Alone, PATIENCE};
use mainstay_testkit::kills::pause;
use mainstay_testkit::{Ended, Packages, Spawned, program};
use rustix::process::Signal;

/// One deed of the program; what it printed.
fn play(broker: &Alone, deed: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/programs/delays.py");
    let file: PathBuf = broker.dir.join("sent.json");
    let mut command = Command::new(program("python3"));
    command.args(["-B", "-u"]).arg(script);
    command.env("PYTHONPATH", Packages::Python.require());
    command.arg(format!("amqp://guest:guest@{}/%2f", broker.address()));
    command.arg(file).args(deed);
    let run = Spawned::start(&broker.dir, deed[0], &mut command);
    assert_eq!(run.wait(PATIENCE), Ended::Code(0), "{}", run.log());
    run.log()
}

/// Messages in the log of a broker that has ended, each once for each queue.
fn in_the_log(broker: &Alone) -> u64 {
    let checked = mainstay_broker::check(broker.state()).expect("it can be read");
    assert_eq!(checked.damage, Vec::<String>::new());
    checked.messages
}

#[test]
fn system_a_delayed_message_comes_at_its_time_and_what_is_no_delay_at_once() {
    let broker = Alone::start("broker-delays");
    play(&broker, &["declare"]);
    let messages = r#"[["late", 900], ["early", 250], ["zero", 0], ["negative", -5], ["huge", 4294967296],
        ["text", "500"], ["none", null], ["for-weeks", 4294967295]]"#;
    play(&broker, &["publish", messages]);
    let came = play(&broker, &["collect"]);
    assert!(came.contains("zero negative huge none"), "{came}");
    assert!(!came.contains("for-weeks"), "{came}");
}

#[test]
fn system_delays_outlive_the_broker_however_it_ends() {
    let mut broker = Alone::start("broker-delays-kill");
    play(&broker, &["declare"]);
    let messages =
        r#"[["due-while-away", 300], ["after", 4000], ["later", 6000], ["for-weeks", 4294967295]]"#;
    play(&broker, &["publish", messages]);
    broker.kill();
    assert_eq!(in_the_log(&broker), 4);
    pause(Duration::from_millis(350));
    broker.start_again();
    broker.wait_until_it_serves();
    broker.kill();
    broker.start_again();
    broker.wait_until_it_serves();
    broker.process().signal(Signal::TERM);
    assert_eq!(broker.process().wait(PATIENCE), Ended::Code(0));
    broker.start_again();
    broker.wait_until_it_serves();
    let came = play(&broker, &["collect"]);
    assert!(came.contains("due-while-away after later"), "{came}");
    play(&broker, &["publish", r#"[["again", 50]]"#]);
    assert!(play(&broker, &["collect"]).contains("came: again"));
    broker.kill();
    assert_eq!(in_the_log(&broker), 1, "what is due in weeks");
    broker.start_again();
    broker.wait_until_it_serves();
    play(&broker, &["delete"]);
    broker.kill();
    assert_eq!(in_the_log(&broker), 0, "its exchange is gone");
}
