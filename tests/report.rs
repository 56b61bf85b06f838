//! `report.html` in a browser: Chromium, headless (`apt install chromium`; `METATAPE_CHROMIUM`
//! names another). Its parts are there, the slider moves the curve, columns sort, and nothing is
//! said on the console.

use std::fs;
use std::path::Path;
use std::process::Command;

use assert_cmd::Command as Tested;
use serde_json::Value;

fn metatape(args: &[&str]) {
    Tested::cargo_bin("metatape").unwrap().args(args).assert().success();
}

/// Opens the page with a script behind it, and gives what that has put into `data-result`.
fn looked_at(page: &Path, script: &str) -> Value {
    let text = fs::read_to_string(page).unwrap();
    // It asks no network: nothing is loaded by address.
    for asks in ["src=\"http", "href=\"http", "url(http", "@import", "fetch("] {
        assert!(!text.contains(asks), "{asks}");
    }
    let script = format!(
        "<script>
         window.addEventListener('error', e => document.body.dataset.error = e.message);
         (async () => {{
             const all = s => [...document.querySelectorAll(s)];
             for (const image of document.images) image.loading = 'eager';
             for (let i = 0; i < 50 && ![...document.images].every(i => i.complete); i++)
                 await new Promise(done => setTimeout(done, 100));
             const result = (() => {{ {script} }})();
             document.body.dataset.result = JSON.stringify(result);
         }})().catch(e => document.body.dataset.error = String(e));
         </script></body>"
    );
    let looked = page.with_file_name("looked_at.html");
    fs::write(&looked, text.replace("</body>", &script)).unwrap();
    let browser = std::env::var("METATAPE_CHROMIUM").unwrap_or("chromium".into());
    let mut command = Command::new(&browser);
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]);
    command.args(["--virtual-time-budget=20000", "--dump-dom"]);
    let output = command.arg(format!("file://{}", fs::canonicalize(&looked).unwrap().display())).output();
    let output =
        output.unwrap_or_else(|e| panic!("{browser} (install it, or name one in METATAPE_CHROMIUM): {e}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("CONSOLE"), "{said}");
    let dom = String::from_utf8_lossy(&output.stdout);
    let of = |name: &str| Some(dom.split_once(&format!("data-{name}=\""))?.1.split_once('"')?.0.to_owned());
    assert_eq!(of("error"), None);
    let result = of("result").unwrap_or_else(|| panic!("the page has not come to its end: {said}"));
    serde_json::from_str(&result.replace("&quot;", "\"").replace("&lt;", "<").replace("&amp;", "&")).unwrap()
}

const PARTS: &str = "
    const slider = document.getElementById('epoch');
    const path = () => document.getElementById('line').getAttribute('d');
    const [last, frames] = [path(), Number(slider.max) + 1];
    slider.value = 0;
    slider.dispatchEvent(new Event('input'));
    const sorted = column => {
        all('#suspects th button')[column].click();
        return all('#suspects tbody tr').map(row => row.querySelectorAll('td[data-value]')[column].dataset.value);
    };
    return {
        title: document.title, frames, moved: path() !== last, now: document.getElementById('now').textContent,
        first: path() === document.querySelector('#curve .first').getAttribute('d'),
        figures: all('figure').map(f => f.id), thumbnails: all('#suspects tbody img').length,
        drawn: [...document.images].every(i => i.naturalWidth > 0),
        suspects: all('#suspects tbody tr').length, loss: sorted(4), label: sorted(1),
        settings: all('#settings td:first-child').map(td => td.textContent), tables: all('section.table').length,
        wide: document.documentElement.scrollWidth <= document.documentElement.clientWidth,
    };";

#[test]
#[ignore = "it opens a browser: `cargo test --release --test report -- --include-ignored`"]
fn a_run_is_a_page_that_a_browser_shows() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    metatape(&["train", "--epochs", "3", "--out", out.to_str().unwrap()]);
    let seen = looked_at(&out.join("report.html"), PARTS);
    assert_eq!(seen["title"], "mlp with mwnet-soft on fashion-mnist-mini");
    assert_eq!(
        (&seen["frames"], &seen["moved"], &seen["now"], &seen["first"]),
        (&4.into(), &true.into(), &"0".into(), &true.into())
    );
    let figures = ["accuracy", "losses", "weight_curve", "weights", "class_accuracy", "confusion"];
    assert_eq!(seen["figures"], serde_json::json!(figures));
    // The accuracies, and the noise beside the estimated one.
    assert_eq!(seen["tables"], 2);
    assert_eq!((&seen["drawn"], &seen["wide"]), (&true.into(), &true.into()));
    assert_eq!((&seen["suspects"], &seen["thumbnails"]), (&100.into(), &100.into()));
    let numbers = |column: &str| -> Vec<f64> {
        seen[column].as_array().unwrap().iter().map(|v| v.as_str().unwrap().parse().unwrap()).collect()
    };
    assert!(numbers("loss").is_sorted(), "a click sorts numbers as numbers");
    let labels: Vec<&str> = seen["label"].as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect();
    assert!(labels.is_sorted_by_key(|label| label.to_lowercase()) && labels.len() == 100, "{labels:?}");
    let settings = seen["settings"].as_array().unwrap();
    assert!(
        ["noise", "weight_decay", "seed"].iter().all(|name| settings.contains(&(*name).into())),
        "{settings:?}"
    );

    // Without weights, and without knowing which labels are wrong.
    let out = dir.path().join("plain");
    metatape(&[
        "train",
        "--method",
        "uniform",
        "--noise",
        "none",
        "--epochs",
        "1",
        "--out",
        out.to_str().unwrap(),
    ]);
    let seen = looked_at(
        &out.join("report.html"),
        "return { slider: all('#epoch').length, columns: all('#suspects th').length, figures: all('figure').length };",
    );
    assert_eq!(seen, serde_json::json!({ "slider": 0, "columns": 8, "figures": 4 }));
}

#[test]
#[ignore = "it opens a browser: `cargo test --release --test report -- --include-ignored`"]
fn studies_are_pages_too() {
    let dir = tempfile::tempdir().unwrap();
    let study = |command: &str, more: &[&str]| {
        let out = dir.path().join(command);
        metatape(
            &[&[command, "--epochs", "1", "--seeds", "1", "--out", out.to_str().unwrap()], more].concat(),
        );
        let script =
            "return { rows: all('section.table tbody tr').length, figures: all('figure').map(f => f.id),
                      drawn: [...document.images].every(i => i.naturalWidth > 0) };";
        looked_at(&out.join("report.html"), script)
    };
    let seen = study("compare", &["--methods", "uniform,mwnet"]);
    let figures = ["accuracy", "weight_curves", "class_accuracy", "confusion_uniform", "confusion_mwnet"];
    assert_eq!(seen, serde_json::json!({ "rows": 2, "figures": figures, "drawn": true }));
    let seen = study("ablate", &["--variants", "published,two-steps"]);
    assert_eq!(
        seen,
        serde_json::json!({ "rows": 2, "figures": ["accuracy", "cosine", "cosine_steps"], "drawn": true })
    );
}
