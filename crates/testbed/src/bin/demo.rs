//! `./x demo`: two clusters with equal addresses on this machine, and a guided tour.

use std::process::ExitCode;

use testbed::demo::{self, Options};

fn main() -> ExitCode {
    match options() {
        Ok(options) => demo::run(&options),
        Err(sentence) => {
            eprintln!("demo: {sentence}\nusage: demo [--check] [--step N]...");
            ExitCode::from(2)
        }
    }
}

fn options() -> Result<Options, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut options = Options { check: false, steps: Vec::new(), stolos: own.with_file_name("stolos") };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--check" => options.check = true,
            "--step" => {
                let number = arguments.next().and_then(|number| number.parse().ok());
                options.steps.push(number.ok_or("--step needs a number")?);
            }
            other => return Err(format!("unknown argument {other}")),
        }
    }
    if !options.stolos.is_file() {
        return Err(format!("{} is not there; build it: cargo build -p stolos", options.stolos.display()));
    }
    Ok(options)
}
