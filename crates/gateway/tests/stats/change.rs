//! What operators change on the page.

use super::*;

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

#[test]
fn whoever_has_the_token_drains_a_server_of_a_listener_and_nobody_else() {
    let (gateway, _, _server) = with_listener(None);
    let own = gateway.stats.to_string();
    let host = ("host", &*own);
    wait_for_server(&gateway, &[host], "status", "UP");
    let page = gateway.stats("/stats/change");
    let policy = page
        .header("content-security-policy")
        .unwrap_or_default()
        .to_owned();
    assert!(policy.contains("form-action 'self'"), "{policy}");
    assert_eq!(page.header("referrer-policy"), Some("same-origin"));
    assert!(page.text().contains("value=\"front/a\"") && page.text().contains("name=\"token\""));

    let post = |headers: &[(&str, &str)], form: &str| {
        let headers = [&[host, FORM], headers].concat();
        send(
            gateway.stats,
            "POST",
            "/stats/change",
            &headers,
            form.as_bytes(),
        )
        .status
    };
    let drain = "server=front/a&action=drain";
    let right = format!("{drain}&token=5ecret");
    for (headers, form, status) in [
        (&[][..], drain, 403),
        (&[], "server=front/a&action=drain&token=5ecreT", 403),
        (&[], "server=front/a&action=drain&token=", 403),
        (&[("origin", "http://evil.example")], &right, 403),
        (&[("origin", "null")], &right, 403),
        (&[("sec-fetch-site", "cross-site")], &right, 403),
        (&[], "server=front/a&action=explode&token=5ecret", 400),
        (&[], "server=front/b&action=drain&token=5ecret", 404),
    ] {
        assert_eq!(post(headers, form), status, "{headers:?} {form}");
    }
    let long = format!("{right}&more={}", "x".repeat(5000));
    assert_eq!(post(&[], &long), 413);
    wait_for_server(&gateway, &[host], "status", "UP");

    let origin = format!("http://{own}");
    let of_page = [("origin", &*origin), ("sec-fetch-site", "same-origin")];
    assert_eq!(post(&of_page, &right), 303);
    wait_for_server(&gateway, &[host], "status", "DRAIN");
    for (action, column, value) in [
        ("maintenance", "status", "MAINT"),
        ("ready", "status", "UP"),
        ("weight&weight=7", "weight", "7"),
        ("reset-weight", "weight", "1"),
    ] {
        let form = format!("server=front/a&action={action}&token=5ecret");
        assert_eq!(post(&[], &form), 303, "{action}");
        wait_for_server(&gateway, &[host], column, value);
    }
    std::fs::remove_file(gateway.state.join("token")).unwrap();
    assert_eq!(post(&[], &right), 403);
}

fn routed(revision: u64, intakes: [Intake; 2], addresses: [SocketAddr; 2]) -> Routing {
    let endpoints = (1..).zip(intakes).zip(addresses);
    let endpoints = endpoints.map(|((number, intake), address)| Endpoint {
        intake,
        ..endpoint(number, address)
    });
    one_service(revision, endpoints.collect())
}

fn intake(state: IntakeState, percent: u16) -> Intake {
    let weight = Weight::new(percent).unwrap();
    Intake { state, weight }
}

#[test]
fn drained_instances_get_nothing_and_are_shown_with_their_weights() {
    let (one, other) = (answering(), answering());
    let addresses = [one.address, other.address];
    let gateway = Gateway::start(Setting::default());
    let (ready, drain) = (Intake::default(), intake(IntakeState::Drain, 100));
    gateway.publish_and_wait(routed(
        1,
        [drain, intake(IntakeState::Ready, 40)],
        addresses,
    ));
    for _ in 0..20 {
        assert_eq!(send(gateway.entry, "GET", "/", &[], b"").status, 200);
    }
    let shown = |id: &str, column: &str, value: &str| {
        wait_until(SOON, "the table shows it", || {
            let rows = rows(&gateway.stats("/stats;csv").text());
            match rows.get(id) {
                Some(row) if row[column] == value => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    };
    shown("orders/orders-1", "status", "DRAIN");
    shown("orders/orders-2", "stot", "20");
    shown("orders/orders-1", "stot", "0");
    shown("orders/orders-2", "weight", "40");
    shown("orders/BACKEND", "act", "1");
    shown("orders/BACKEND", "weight", "40");

    let maintained = intake(IntakeState::Maintenance, 100);
    gateway.publish_and_wait(routed(2, [maintained, ready], addresses));
    shown("orders/orders-1", "status", "MAINT");
    gateway.publish_and_wait(routed(3, [drain, maintained], addresses));
    let began = Instant::now();
    let reply = send(gateway.entry, "GET", "/", &[], b"");
    assert_eq!(
        (reply.status, reply.header("mainstay-reason")),
        (503, Some("drained"))
    );
    assert!(
        began.elapsed() < Duration::from_millis(900),
        "it waits for nothing"
    );
    shown("orders/BACKEND", "status", "DOWN");
    gateway.publish_and_wait(routed(4, [ready, ready], addresses));
    assert_eq!(send(gateway.entry, "GET", "/", &[], b"").status, 200);
}

#[test]
fn an_instance_is_not_changed_while_the_control_centre_is_away_and_the_page_says_so() {
    let one = answering();
    let gateway = Gateway::start(Setting::default());
    std::fs::write(gateway.state.join("token"), "5ecret\n").unwrap();
    gateway.publish_and_wait(one_service(1, vec![endpoint(1, one.address)]));
    wait_until(SOON, "the form names the instance", || {
        let page = gateway.stats("/stats/change").text();
        let named =
            page.contains("<option value=\"orders-1\">orders-1: ready, weight 100%</option>");
        if named { Ok(()) } else { Err(page) }
    });
    let own = gateway.stats.to_string();
    let post = |form: &[u8]| {
        let headers = [("host", &*own), FORM];
        send(gateway.stats, "POST", "/stats/change", &headers, form)
    };
    assert_eq!(
        post(b"server=orders-1&action=drain&token=wrong").status,
        403
    );
    let reply = post(b"server=orders-1&action=drain&token=5ecret");
    assert_eq!(reply.status, 503);
    let text = reply.text();
    assert!(
        text.contains("control centre") && text.contains("nothing was changed"),
        "{text}"
    );
    assert_eq!(send(gateway.entry, "GET", "/", &[], b"").status, 200);
}

#[test]
fn with_a_password_the_page_itself_may_change_a_server_and_no_other_page() {
    let (gateway, _, _server) = with_listener(Some(StatsAuth {
        user: "Aladdin".into(),
        password: "open sesame".into(),
    }));
    let host = ("host", "stats.example");
    let known = ("authorization", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    wait_for_server(&gateway, &[host, known], "status", "UP");
    let post = |headers: &[(&str, &str)], form: &str| {
        let headers = [&[host, FORM], headers].concat();
        send(
            gateway.stats,
            "POST",
            "/stats/change",
            &headers,
            form.as_bytes(),
        )
        .status
    };
    let own = ("origin", "http://stats.example");
    let drain = "server=front/a&action=drain";
    assert_eq!(post(&[own], drain), 401);
    assert_eq!(
        post(&[own], "server=front/a&action=drain&token=5ecret"),
        401
    );
    assert_eq!(
        post(&[known, ("origin", "http://evil.example")], drain),
        403
    );
    assert_eq!(
        post(&[known], drain),
        403,
        "a page of another site may have sent it"
    );
    wait_for_server(&gateway, &[host, known], "status", "UP");
    assert_eq!(post(&[known, own], drain), 303);
    wait_for_server(&gateway, &[host, known], "status", "DRAIN");
}
