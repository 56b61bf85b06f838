//! What the source may hold, and where: the table of unsafe code in CONTRIBUTING.md is that of the
//! files; files that are named by others are opened in one place.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// How often the keyword stands in each file below a folder, outside of comments and texts.
fn count(folder: &Path, root: &Path, all: &mut BTreeMap<String, usize>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            count(&path, root, all);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
            let words = code.flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_'));
            let count = words.filter(|word| *word == "unsafe").count();
            if count > 0 {
                let name = path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
                all.insert(name, count);
            }
        }
    }
}

#[test]
fn the_table_of_unsafe_code_is_right() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeMap::new();
    count(&root.join("src"), root, &mut found);
    let text = fs::read_to_string(root.join("CONTRIBUTING.md")).unwrap();
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| `src/")?.split('|').map(str::trim);
        let (file, count, why) = (cells.next()?, cells.next()?, cells.next()?);
        assert!(why.len() > 10, "src/{file} has no reason");
        Some((format!("src/{}", file.trim_end_matches('`')), count.parse().unwrap()))
    };
    let table: BTreeMap<String, usize> = text.lines().filter_map(row).collect();
    for (file, count) in &found {
        assert_eq!(
            table.get(file),
            Some(count),
            "{file}: mend its row in CONTRIBUTING.md, and say why it is needed"
        );
    }
    for file in table.keys() {
        assert!(found.contains_key(file), "{file} has no unsafe code any more: remove its row");
    }
    let sum: usize = found.values().sum();
    assert!(text.contains(&format!("{sum} in all")), "CONTRIBUTING.md: {sum} in all");
}

/// Elsewhere, a pipe would be waited for, and a file that is too large would end the process.
#[test]
fn files_are_opened_in_one_place() {
    fn look(folder: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                look(&path, found);
            } else if path.extension().is_some_and(|ending| ending == "rs") && !path.ends_with("src/file.rs")
            {
                let text = fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
                let ways = ["fs::read(", "fs::read_to_string(", "File::open("];
                // The system's own, and folders, which `open` only locks and syncs.
                let opens = code
                    .lines()
                    .filter(|line| ways.iter().any(|way| line.replace("ModelFile::open(", "").contains(way)))
                    .filter(|line| !line.contains("(\"/proc/") && !line.contains("Ok(folder) ="));
                found.extend(opens.map(|line| format!("{}: {}", path.display(), line.trim())));
            }
        }
    }
    let mut found = Vec::new();
    look(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert!(found.is_empty(), "use src/file.rs: {found:#?}");
}
