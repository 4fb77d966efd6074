//! What reading and writing costs: `cargo run --release -p mainstay-http1 --example speed`.
//!
//! Prints nanoseconds, the least of several rounds, for the head of a usual request with ten fields
//! and for the framing of a chunked body.

use bytes::{Bytes, BytesMut};
use mainstay_http1::{
    ChunkHead, Decoder, Framing, HeadLimits, HeadWriter, Method, Request, Response, Scan, Step,
};
use std::hint::black_box;
use std::time::Instant;

const REQUEST: &[u8] = b"GET /api/v1/orders/4711?expand=items&page=2 HTTP/1.1\r\n\
Host: shop.example.com\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
Accept: application/json, text/plain, */*\r\n\
Accept-Language: en-US,en;q=0.5\r\n\
Accept-Encoding: gzip, deflate, br\r\n\
Cookie: session=4f1b2c3d4e5f60718293a4b5c6d7e8f9; theme=dark\r\n\
Referer: https://shop.example.com/orders\r\n\
Connection: keep-alive\r\n\
Cache-Control: no-cache\r\n\
X-Request-Id: 01HZX3K8N2V7Q4M5R6T8W9Y0ZA\r\n\
\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
Content-Type: application/json; charset=utf-8\r\n\
Content-Length: 1234\r\n\
Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
Cache-Control: no-store\r\n\
Vary: Accept-Encoding\r\n\
\r\n";

const LIMITS: HeadLimits = HeadLimits {
    len_max: 64 * 1024,
    fields_max: 100,
};

const ROUNDS: usize = 20;
const TIMES: u32 = 50_000;

fn measure(what: &str, mut work: impl FnMut()) {
    let round = |_| {
        let start = Instant::now();
        (0..TIMES).for_each(|_| work());
        start.elapsed() / TIMES
    };
    let least = (0..ROUNDS).map(round).min().unwrap_or_default();
    println!("{what}: {} ns", least.as_nanos());
}

fn main() {
    let head = Bytes::from_static(REQUEST);
    measure("scan for the end of a request's head", || {
        black_box(Scan::default().find_end(black_box(REQUEST), LIMITS)).ok();
    });
    measure("parse a request's head", || {
        black_box(Request::parse(black_box(head.clone()), LIMITS)).ok();
    });
    let request = Request::parse(head, LIMITS).expect("it is well-formed");
    let mut out = Vec::with_capacity(4096);
    measure("write it anew", || {
        out.clear();
        let mut writer = HeadWriter::request(&mut out, request.method_name(), request.target());
        for field in request.fields.iter() {
            if !request.connection_names(field.name) {
                writer.field(field.name, field.value);
            }
        }
        writer.finish();
        black_box(&out);
    });
    let answer = Bytes::from_static(RESPONSE);
    measure("parse an answer's head", || {
        black_box(Response::parse(
            black_box(answer.clone()),
            Method::Get,
            LIMITS,
        ))
        .ok();
    });
    measure_bodies();
}

fn measure_bodies() {
    for (what, chunk_len, chunks) in [("16 KiB", 16 * 1024, 4), ("1 byte", 1, 1000)] {
        let mut body = Vec::new();
        for _ in 0..chunks {
            body.extend_from_slice(ChunkHead::new(chunk_len).as_bytes());
            body.resize(body.len() + chunk_len, b'x');
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"0\r\n\r\n");
        let copied = |work: fn(&mut BytesMut)| {
            let start = Instant::now();
            for _ in 0..TIMES / 50 {
                work(&mut black_box(BytesMut::from(body.as_slice())));
            }
            start.elapsed() / (TIMES / 50) / chunks
        };
        let decode = (0..ROUNDS)
            .map(|_| copied(decode))
            .min()
            .unwrap_or_default();
        let without = (0..ROUNDS)
            .map(|_| copied(|_| ()))
            .min()
            .unwrap_or_default();
        let least = decode.saturating_sub(without);
        println!(
            "take the framing off a chunk of {what}: {} ns",
            least.as_nanos()
        );
    }
}

fn decode(body: &mut BytesMut) {
    let mut decoder = Decoder::new(Framing::Chunked);
    while let Ok(Step::Data(data)) = decoder.decode(body) {
        black_box(data);
    }
    assert!(decoder.is_complete(), "it is well-formed");
}
