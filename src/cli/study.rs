//! What `compare` and `ablate` share: from a plan to the cells of a study.

use std::path::Path;

use metatape::program::Session;
use metatape::train::Config;
use metatape::train::study::{Arm, Cell, Plan, Study};
use metatape::words::counted;
use metatape::{Error, Result};

use super::args::{check_milestones, given, tell_milestones};
use super::device::Machine;
use super::folder::in_folder;
use super::progress::Progress;
use super::signals;
use super::train::{agree, goes_on, misfit};

/// Begins a study or goes on with one, as the flags of `command` ask.
pub fn open<A: Arm>(
    command: &str,
    asked: Plan<A>,
    machine: &Machine,
    (out, resume): (Option<&Path>, bool),
) -> Result<Study<A>> {
    let threads = asked.config.threads;
    let mut study = match (out, resume) {
        (Some(out), true) => {
            let mut study = Study::resume(out)?;
            study.extend(grown(command, asked, &study.plan)?)?;
            study
        }
        (out, _) => {
            check_milestones(command, &asked.config)?;
            // A machine that is not there is told before anything is written.
            machine.backend()?;
            in_folder(out, command, |out| Study::start(asked, out))?
        }
    };
    study.plan.config.threads = threads;
    tell_milestones(command, &study.plan.config);
    Ok(study)
}

/// Trains what is not finished of a study, or of a part of it: `out` is the folder to go on with.
pub fn train<A: Arm>(
    command: &str,
    (study, out): (&Study<A>, &Path),
    machine: &Machine,
    mut progress: Progress,
) -> Result<Vec<Cell>> {
    // It keeps its precision, too.
    let mut machine = machine.clone();
    machine.precision = study.plan.config.precision;
    signals::note()?;
    progress.say(&format!("folder: {}", study.out.display()));
    study.account.iter().for_each(|line| progress.say(line));
    let cells = study.run(&|| Ok(Session::new(machine.backend()?)), &mut progress);
    let cells = cells.map_err(|error| goes_on(error, command, out))?;
    progress.finish();
    Ok(cells)
}

/// So many seeds from this one on.
pub fn seeds(first: u64, count: usize) -> Result<Vec<u64>> {
    let room = || Error::Usage(format!("--seed {first} leaves no room for {}", counted(count, "seed")));
    let last = first.checked_add(count as u64 - 1).ok_or_else(room)?;
    Ok((first..=last).collect())
}

/// A resumed study keeps its plan, but that arms and seeds may be added to it: a flag on the
/// command line that says otherwise is an error.
fn grown<A: Arm>(command: &str, asked: Plan<A>, stored: &Plan<A>) -> Result<Plan<A>> {
    let typed = given(command);
    let mut plan = stored.clone();
    let differs = |key: &str, had: String, rule: &str| {
        misfit(A::STUDY, &format!("--{key}"), &format!("{key} = {had}{rule}"))
    };
    let first = |plan: &Plan<A>| plan.seeds.first().copied().unwrap_or(1);
    if typed.contains("seed") && first(&asked) != first(stored) {
        return Err(differs("seed", first(stored).to_string(), ""));
    }
    if typed.contains("seeds") {
        plan.seeds = seeds(first(stored), asked.seeds.len())?;
        if !plan.seeds.starts_with(&stored.seeds) {
            return Err(differs("seeds", stored.seeds.len().to_string(), "; seeds can only be added"));
        }
    }
    let arms = format!("{}s", A::ARM);
    if typed.contains(&arms) {
        if !stored.arms.iter().all(|arm| asked.arms.contains(arm)) {
            let had: Vec<String> = stored.arms.iter().map(A::to_string).collect();
            let rule = format!("; {arms} can only be added, so name those as well");
            return Err(differs(&arms, had.join(","), &rule));
        }
        plan.arms.extend(asked.arms.iter().filter(|arm| !stored.arms.contains(arm)));
    }
    // What the stored preset has set is not contradicted by defaults.
    if typed.contains("preset") && asked.preset != stored.preset {
        return Err(differs("preset", stored.preset.clone().unwrap_or("none".into()), ""));
    }
    let asked = Config { seed: stored.config.seed, ..asked.config };
    plan.config = Config { threads: None, ..agree(command, A::STUDY, &asked, &stored.config)? };
    Ok(plan)
}
