//! Interim answers of instances (1xx).

use super::*;

const HINTS: &[u8] =
    b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\nserver: secret\r\n\
    connection: x-secret\r\nx-secret: 1\r\ncontent-length: 0\r\n\r\n";

#[test]
fn an_interim_answer_reaches_a_client_of_http11_before_the_answer_does() {
    use mainstay_model::rewrite::Rewrite;
    use mainstay_model::routing::VersionRewrite;
    let (go_on, wait) = mpsc::sync_channel::<()>(SIGNALS);
    let wait = Mutex::new(wait);
    let instance = Instance::start(move |seen, stream| {
        stream
            .get_mut()
            .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        stream.get_mut().write_all(HINTS)?;
        wait.lock().unwrap().recv().unwrap();
        let body = read_body(seen, stream)?;
        answer(stream, "200 OK", &[], &body)?;
        Ok(Then::Next)
    });
    let mut routing = one_service(1, vec![endpoint(1, instance.address)]);
    let mut rewrite = Rewrite::default();
    let server = mainstay_model::route::FieldName::parse("server").unwrap();
    rewrite.response.remove.insert(server);
    let version = mainstay_ids::Version::FIRST;
    routing.services[0].rewrites = vec![VersionRewrite { version, rewrite }];
    let gateway = Gateway::with(routing);
    let mut client = connect(gateway.entry);
    for (method, body) in [("GET", ""), ("POST", "hello")] {
        write_request(&mut client, method, "/", &[], body.as_bytes());
        let expected = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n";
        assert_eq!(read_head(&mut client), expected);
        // Not before it was read.
        go_on.send(()).unwrap();
        let reply = read_reply(&mut client);
        assert_eq!((reply.status, &*reply.text()), (200, body));
    }
    go_on.send(()).unwrap();
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!(read_reply(&mut client).status, 200, "HTTP/1.0 knows none");
}

#[test]
fn no_more_interim_answers_pass_than_a_client_can_be_asked_to_read() {
    const MOST: usize = 32;
    let instance = Instance::start(|_, stream| {
        stream.get_mut().write_all(&HINTS.repeat(5 * MOST))?;
        answer(stream, "200 OK", &[], b"done")?;
        Ok(Then::Next)
    });
    let gateway = Gateway::with(one_service(1, vec![endpoint(1, instance.address)]));
    let mut client = connect(gateway.entry);
    for _ in 0..2 {
        write_request(&mut client, "GET", "/", &[], b"");
        for _ in 0..MOST {
            assert!(read_head(&mut client).starts_with("HTTP/1.1 103 "));
        }
        let reply = read_reply(&mut client);
        assert_eq!((reply.status, &*reply.text()), (200, "done"));
    }
}

#[test]
fn an_interim_answer_decides_nothing() {
    // Hints, and then the end.
    let broken = Instance::start(|seen, stream| {
        read_body(seen, stream)?;
        stream.get_mut().write_all(HINTS)?;
        Ok(Then::Close)
    });
    let gateway = Gateway::with(one_service(1, vec![endpoint(1, broken.address)]));
    let mut client = connect(gateway.entry);
    write_request(&mut client, "POST", "/", &[], b"x");
    assert!(read_head(&mut client).starts_with("HTTP/1.1 103 "));
    let reply = read_reply(&mut client);
    assert_eq!(reply.header("mainstay-reason"), Some("lost-in-flight"));
    let good = Instance::named("good");
    let both = vec![endpoint(1, broken.address), endpoint(2, good.address)];
    gateway.publish_and_wait(one_service(2, both));
    let before = broken.count();
    while broken.count() == before {
        let mut client = connect(gateway.entry);
        write_request(&mut client, "GET", "/", &[("connection", "close")], b"");
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        let hinted = text.starts_with("HTTP/1.1 103 ");
        assert_eq!(hinted, broken.count() > before, "{text}");
        assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 1, "{text}");
        assert!(text.ends_with("\r\n\r\ngood"), "{text}");
    }
}
