//! Runs the simulation: one seed, or one after the other for as long as is wanted. Called by `scripts/sim`.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use supercloud_tests::{
    Outcome,
    sim::{self, Planted},
    wrong,
};

const USAGE: &str = "usage: supercloud-sim [--seed N] [--seeds N] [--minutes M] [--trace] [--plant FAULT]

  --seed N      begin with this seed (by chance)
  --seeds N     so many seeds (1 with --seed, else without end)
  --minutes M   for so long
  --trace       tell what happens; best with one seed. The product's own words with RUST_LOG=debug
  --plant FAULT with this fault planted in the product, to see it caught: acknowledge-before-sync, reuse-read-context,
                applied-apart-from-state, count-learner, evict-without-brake, old-orders";

/// Progress is told this often.
const PROGRESS: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
struct Wish {
    seed: Option<u64>,
    seeds: Option<u64>,
    minutes: Option<u64>,
    trace: bool,
    planted: Option<Planted>,
}

fn wish() -> Outcome<Wish> {
    let mut wish = Wish::default();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || match words.next().map(|text| text.parse()) {
            Some(Ok(number)) => Ok(Some(number)),
            _ => wrong(format!("{word}: expected a number\n{USAGE}")),
        };
        match word.as_str() {
            "--seed" => wish.seed = number()?,
            "--seeds" => wish.seeds = number()?,
            "--minutes" => wish.minutes = number()?,
            "--trace" => wish.trace = true,
            "--plant" => {
                let name = words.next().unwrap_or_default();
                match Planted::ALL.iter().find(|(known, _)| *known == name) {
                    Some((_, planted)) => wish.planted = Some(*planted),
                    None => return wrong(format!("--plant: {name:?} is no fault\n{USAGE}")),
                }
            }
            _ => return wrong(format!("{word}: not understood\n{USAGE}")),
        }
    }
    Ok(wish)
}

fn main() -> ExitCode {
    match wish().and_then(|wish| run(&wish)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(wish: &Wish) -> Outcome {
    if wish.trace {
        // The product's own words between those of the simulation, as much of them as RUST_LOG asks for.
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).without_time().with_writer(std::io::stderr).init();
    }
    let first = wish.seed.unwrap_or_else(rand::random);
    let alone = wish.seed.is_some() && wish.minutes.is_none();
    let seeds = wish.seeds.unwrap_or(if alone { 1 } else { u64::MAX });
    let began = Instant::now();
    let end = wish.minutes.map(|minutes| began + Duration::from_secs(60 * minutes));
    let (mut told, mut done, mut events) = (began, 0, 0);
    while done < seeds && end.is_none_or(|end| Instant::now() < end) {
        let seed = first.wrapping_add(done);
        match sim::run_planted(seed, wish.trace, wish.planted) {
            Ok(report) => {
                events += report.events;
                if wish.trace || seeds == 1 {
                    println!("seed {seed}: {report:?}");
                }
            }
            Err(violation) => {
                return wrong(format!("seed {seed}: {violation}\nreplay: scripts/sim --seed {seed} --trace"));
            }
        }
        done += 1;
        if told.elapsed() >= PROGRESS {
            told = Instant::now();
            println!("{done} seeds, {events} events, {} s", began.elapsed().as_secs());
        }
    }
    println!("{done} seeds from {first} without a fault, {events} events, {} s", began.elapsed().as_secs());
    Ok(())
}
