//! `metatape ablate`: from flags to a study of variants, and what it shows at its end.

use metatape::train::ablation::{Findings, META_SIZE, Variant, default_meta_size};
use metatape::train::study::{Plan, first_warnings};
use metatape::{Error, Result};

use super::args::AblateArgs;
use super::progress::Progress;
use super::report::{ms, optional, print, print_file, table, warn, wrap};
use super::study::{self, seeds};

/// Trains all cells, or what is left of them.
pub fn run(args: &AblateArgs) -> Result<()> {
    let AblateArgs { out, resume, strict, json, .. } = args;
    let machine = args.run.machine();
    let study = study::open("ablate", plan(args)?, &machine, (out.as_deref(), *resume))?;
    let progress = Progress::study(&study.plan, *json, args.keep.checkpoint_every);
    let cells = study::train("ablate", (&study, &study.out), &machine, progress)?;
    let findings = Findings::new(&study.plan, &cells);
    findings.write(&study)?;
    if *json {
        print_file(&study.out.join("summary.json"))?;
    } else {
        print(report(&findings))?;
        print(format_args!("\n{}\n", wrap(&findings.conclusions())))?;
        print(format_args!("files: {}", study.out.display()))?;
    }
    warn(&first_warnings(&cells), *strict, &study.out)
}

/// What the flags ask for.
fn plan(args: &AblateArgs) -> Result<Plan<Variant>> {
    let flags = args.run.config()?;
    let given = [("source", flags.meta_source.is_some()), ("dir", flags.meta_dir.is_some())];
    if let Some((flag, _)) = given.iter().find(|flag| flag.1) {
        return Err(Error::Usage(format!(
            "--meta-{flag} is not for ablate, which sets its meta sets apart from the training samples; leave it out"
        )));
    }
    let meta_size = match flags.meta_size {
        Some(size) => size,
        // The study has its own, and its data may be gone.
        None if args.resume => META_SIZE,
        None => default_meta_size(&flags.reading().load()?),
    };
    let mut arms = match &args.variants {
        Some(list) => list.clone(),
        None => Variant::default_list(meta_size, flags.noise),
    };
    // What all others are compared with is always there, first.
    arms.sort_by_key(|v| *v != Variant::Published);
    if arms.first() != Some(&Variant::Published) {
        arms.insert(0, Variant::Published);
    }
    let config = metatape::train::Config { baseline: false, meta_size: Some(meta_size), ..flags };
    Ok(Plan { arms, seeds: seeds(1, args.seeds)?, preset: None, config })
}

/// The table at the end.
fn report(findings: &Findings) -> String {
    let heading = "variant,final %,± sd,best %,against published,cosine,V clean,V wrong,ms a step";
    let mut rows = vec![heading.split(',').map(str::to_owned).collect::<Vec<_>>()];
    let number = |value, digits: usize| optional(value, |v: f64| format!("{v:.digits$}").replace('-', "−"));
    for row in &findings.rows {
        let (arm, mark) = (&row.arm, if row.beyond_spread == Some(true) { " *" } else { "  " });
        rows.push(vec![
            row.name.to_string(),
            number(arm.final_mean, 2),
            number(arm.final_std, 2),
            number(arm.best_mean, 2),
            row.difference.map_or("-  ".to_owned(), |d| format!("{d}{mark}")),
            number(row.cosine_mean, 3),
            number(arm.mean_weight_clean, 3),
            number(arm.mean_weight_corrupted, 3),
            optional(arm.ms_per_step, ms),
        ]);
    }
    let other = findings.other_batch.map_or(String::new(), |other| {
        format!("\ncosine between the exact hypergradients on two clean meta batches: {other}")
    });
    format!(
        "\n{}\n\n* beyond the spread: the 95% interval of seed-by-seed differences (± at least one test sample) leaves out 0{other}",
        table(&rows)
    )
}
