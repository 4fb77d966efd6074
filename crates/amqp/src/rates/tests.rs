use super::*;

fn at(ms: u64) -> Instant {
    Instant::from_start(Duration::from_millis(ms))
}

fn counts(published: u64, acknowledged: u64) -> Counts {
    Counts {
        published,
        acknowledged,
        delivered: acknowledged,
        ..Counts::default()
    }
}

/// A queue to which `published` come each second and that loses `acknowledged`, for so many seconds.
fn steady(meter: &mut Meter, from: (u64, Counts), per_second: (u64, u64), seconds: u64) -> Counts {
    let (start, mut now) = from;
    for second in 1..=seconds {
        now = counts(
            now.published + per_second.0,
            now.acknowledged + per_second.1,
        );
        meter.mark(at((start + second) * 1000), &now);
    }
    now
}

#[test]
fn a_steady_stream_has_its_rate_from_the_first_second_on() {
    let mut meter = Meter::new(at(0), &Counts::default());
    assert_eq!(meter.rates(), Rates::default());
    for seconds in 1..20 {
        let mut meter = Meter::new(at(0), &Counts::default());
        steady(&mut meter, (0, Counts::default()), (100, 40), seconds);
        let wanted = Rates {
            published: 100.0,
            delivered: 40.0,
            acknowledged: 40.0,
        };
        assert_eq!(meter.rates(), wanted, "after {seconds} s");
    }
    meter.mark(at(10), &counts(7, 0));
    assert_eq!(meter.rates(), Rates::default(), "too soon to be told");
}

#[test]
fn a_burst_is_seen_within_the_window_and_forgotten_after_it() {
    let mut meter = Meter::new(at(0), &Counts::default());
    let now = steady(&mut meter, (0, Counts::default()), (100, 100), 30);
    let now = steady(&mut meter, (30, now), (1000, 100), 2);
    let rising = meter.rates().published;
    assert!(rising > 100.0 && rising < 1000.0, "{rising}");
    let now = steady(&mut meter, (32, now), (1000, 100), 3);
    assert!((meter.rates().published - 1000.0).abs() < f64::EPSILON);
    steady(&mut meter, (35, now), (100, 100), 5);
    assert!((meter.rates().published - 100.0).abs() < f64::EPSILON);
}

#[test]
fn a_few_messages_at_once_are_no_thousand_per_second() {
    let mut meter = Meter::new(at(999), &Counts::default());
    meter.mark(at(1000), &counts(1, 0));
    meter.mark(at(1600), &counts(3, 0));
    assert!((meter.rates().published - 3.0).abs() < f64::EPSILON);
}

#[test]
fn a_meter_ends_when_nothing_happened_for_the_window_and_not_before() {
    let mut meter = Meter::new(at(0), &counts(0, 0));
    assert!(!meter.is_still(), "something is about to happen");
    for second in 1..=5 {
        meter.mark(at(second * 1000), &counts(8, 0));
        assert!(!meter.is_still(), "after {second} s");
    }
    meter.mark(at(6000), &counts(8, 0));
    assert!(meter.is_still());
    assert_eq!(meter.rates(), Rates::default());
}

#[test]
fn however_often_it_is_marked_a_meter_stays_small() {
    let mut meter = Meter::new(at(0), &Counts::default());
    for ms in 0..60_000 {
        meter.mark(at(ms), &counts(ms, 0));
    }
    assert!(meter.marks.len() <= 12, "{}", meter.marks.len());
    let rate = meter.rates().published;
    assert!((rate - 1000.0).abs() < 1.0, "{rate}");
}

#[test]
fn a_process_that_slept_gets_the_mean_of_the_time_it_slept() {
    let mut meter = Meter::new(at(0), &Counts::default());
    meter.mark(at(60_000), &counts(600, 0));
    assert!((meter.rates().published - 10.0).abs() < f64::EPSILON);
}

#[test]
fn seconds_to_empty_are_what_is_left_by_what_becomes_less() {
    let rates = |published, acknowledged| Rates {
        published,
        acknowledged,
        delivered: acknowledged,
    };
    let to_empty =
        |published, acknowledged, depth| rates(published, acknowledged).seconds_to_empty(depth);
    assert!((to_empty(10.0, 60.0, 100) - 2.0).abs() < f64::EPSILON);
    assert!(to_empty(60.0, 60.0, 100).is_infinite(), "it stays as it is");
    assert!(to_empty(61.0, 60.0, 100).is_infinite(), "it grows");
    assert!(to_empty(0.0, 0.0, 1).is_infinite(), "nobody takes anything");
    assert_eq!(to_empty(60.0, 1.0, 0).to_bits(), 0, "nothing is there");
}

#[test]
fn who_acknowledges_nothing_empties_a_queue_as_well() {
    let mut meter = Meter::new(at(0), &Counts::default());
    let taken = Counts {
        auto_acknowledged: 50,
        ..Counts::default()
    };
    meter.mark(at(1000), &taken);
    assert!((meter.rates().seconds_to_empty(100) - 2.0).abs() < f64::EPSILON);
}
