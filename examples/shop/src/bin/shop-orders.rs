//! Orders: what clients of the shop see. `GET /orders/N` tells of an order, `POST /orders` makes
//! one; both ask payments and inventory.

use std::process::ExitCode;
use std::rc::Rc;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use shop::settings::address;
use shop::{Answer, Asked, Dependency, Failed};

fn main() -> ExitCode {
    shop::run("orders", || {
        let payments = Rc::new(Dependency::new("payments", address("PAYMENTS")?));
        let inventory = Rc::new(Dependency::new("inventory", address("INVENTORY")?));
        Ok(move |asked| answer(asked, Rc::clone(&payments), Rc::clone(&inventory)))
    })
}

async fn answer(asked: Asked, payments: Rc<Dependency>, inventory: Rc<Dependency>) -> Answer {
    let number = match (&asked.method, asked.path.as_str()) {
        (&Method::GET, "/") => "1",
        (&Method::POST, "/orders") => "new",
        (&Method::GET, path) => path.strip_prefix("/orders/").unwrap_or_default(),
        _ => "",
    };
    if number.is_empty() || number.contains('/') {
        let hint = json!("try GET /orders/1 or POST /orders");
        return Answer::new(StatusCode::NOT_FOUND, [("error", hint)]);
    }
    let (payment_path, stock_path) = (format!("/payments/{number}"), format!("/stock/{number}"));
    let asking = (
        payments.ask(&asked, &payment_path),
        inventory.ask(&asked, &stock_path),
    );
    let (payment, stock) = tokio::join!(asking.0, asking.1);
    match (payment, stock) {
        (Ok(payment), Ok(stock)) => {
            let made = asked.method == Method::POST;
            let status = if made {
                StatusCode::CREATED
            } else {
                StatusCode::OK
            };
            let served = json!([by(&payment), by(&stock)]);
            let paid = payment["paid"].clone();
            let in_stock = stock["in_stock"].clone();
            let order = json!({ "number": number, "paid": paid, "in_stock": in_stock });
            Answer::new(status, [("order", order), ("with", served)])
        }
        (Err(failed), _) | (_, Err(failed)) => unable(failed),
    }
}

/// Who served.
fn by(answer: &Value) -> Value {
    json!({ "instance": answer["instance"], "version": answer["version"] })
}

fn unable(failed: Failed) -> Answer {
    let answer = Answer::new(StatusCode::BAD_GATEWAY, [("error", json!(failed.what))]);
    Answer {
        blame: failed.blame,
        ..answer
    }
}
