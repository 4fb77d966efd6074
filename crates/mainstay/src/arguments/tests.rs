//! What can be typed.

use super::*;
use clap::CommandFactory;

#[test]
fn the_command_line_is_consistent() {
    Arguments::command().debug_assert();
}

#[test]
fn no_help_holds_what_clap_takes_for_a_place_of_its_own() {
    // clap fills these places in when it prints.
    for command in Arguments::command().get_subcommands() {
        for argument in command.get_arguments() {
            let help = argument.get_long_help().or(argument.get_help());
            let text = help.map(ToString::to_string).unwrap_or_default();
            assert!(!text.contains("{n}"), "{}: {text}", argument.get_id());
        }
    }
}

#[test]
fn logs_are_asked_for_by_service_or_by_instance() {
    let instance = "orders-3".parse().map(LogSource::Instance);
    assert_eq!("orders-3".parse::<LogSource>().ok(), instance.ok());
    let service = ServiceName::parse("orders").map(LogSource::Service);
    assert_eq!("orders".parse::<LogSource>(), service);
    assert!("Orders".parse::<LogSource>().is_err());
}
