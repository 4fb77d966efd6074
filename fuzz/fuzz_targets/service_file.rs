//! The reader of the service file takes any text: no panic, every place lies inside the text, and
//! what was read survives JSON.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mainstay_api::file::{self, Look};
use mainstay_model::ServiceSpec;
use std::path::Path;

fuzz_target!(|text: &str| {
    let env = |name: &str| (name.len() < 3).then(|| name.repeat(2));
    match file::parse(text, "fuzz.toml", Path::new("/srv"), &env) {
        Ok(services) => {
            let json = serde_json::to_string(&services).expect("specifications are JSON");
            let back: Vec<ServiceSpec> = serde_json::from_str(&json).expect("and come back");
            assert_eq!(back, services);
        }
        Err(problems) => {
            assert!(!problems.is_empty());
            let inside = text.strip_prefix('\u{feff}').unwrap_or(text);
            for problem in problems.problems() {
                for place in problem.place.iter().chain(&problem.also) {
                    assert!(inside.get(place.span.clone()).is_some());
                }
            }
            problems.render(Look::Graphical);
            problems.render(Look::Plain);
        }
    }
});
