//! Specs from files and standard input. Every file is read and checked before anything is asked of the cluster.

use std::{
    fs,
    io::{self, Read},
    path::Path,
};

use supercloud_proto::{
    problem::Problems,
    spec::{self, WorkloadSpec},
};

use crate::{args::FileArgs, failure::Failure};

/// Most bytes taken from a file: more than any spec file may have, so that its own limit gives the message.
const MAX_READ: u64 = 8 << 20;

/// All specs of all files, in order; or all problems of all files.
pub fn specs(args: &FileArgs) -> Result<Vec<WorkloadSpec>, Failure> {
    let files: Vec<&Path> = args.named.iter().chain(&args.plain).map(AsRef::as_ref).collect();
    if files.is_empty() {
        return Err(Failure::Usage("which file? Name one, or \"-\" for standard input".to_owned()));
    }
    let mut specs = Vec::new();
    let mut problems = Vec::new();
    for file in &files {
        match spec::parse(&read(file)?) {
            Ok(found) => specs.extend(found),
            Err(Problems(found)) if files.len() == 1 => problems.extend(found),
            Err(Problems(found)) => problems.extend(found.into_iter().map(|mut problem| {
                problem.path = format!("{}: {}", file.display(), problem.path);
                problem
            })),
        }
    }
    if problems.is_empty() { Ok(specs) } else { Err(Problems(problems).into()) }
}

fn read(file: &Path) -> Result<String, Failure> {
    let unreadable = |error: io::Error| Failure::Usage(format!("{} cannot be read: {error}", file.display()));
    let mut text = String::new();
    if file == Path::new("-") {
        io::stdin().lock().take(MAX_READ).read_to_string(&mut text).map_err(unreadable)?;
    } else {
        fs::File::open(file)
            .and_then(|open| open.take(MAX_READ).read_to_string(&mut text))
            .map_err(unreadable)?;
    }
    Ok(text)
}
