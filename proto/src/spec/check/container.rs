//! What a container may not be.

use std::collections::BTreeSet;

use super::{Checker, MAX_TEXT, image::is_image_reference};
use crate::{
    problem::{quoted, shortened},
    spec::Container,
};

/// Most words of a command, and most environment variables: what fits on a screen is enough, and files serve for more.
const MAX_WORDS: usize = 256;
/// Longest word of a command or value of a variable, in bytes.
const MAX_WORD: usize = 32 << 10;
/// Longest name of a variable.
const MAX_ENV_NAME: usize = 256;
/// Most ports of a container.
const MAX_PORTS: usize = 64;
/// Most mounts of a container.
const MAX_MOUNTS: usize = 64;

/// Whether a variable can have this name. Dots and dashes are allowed, since many programs read such variables.
fn is_env_name(name: &str) -> bool {
    let letter = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    (1..=MAX_ENV_NAME).contains(&name.len())
        && name.bytes().all(letter)
        && !name.starts_with(|c: char| c.is_ascii_digit())
}

/// Whether the text is `user` or `user:group`, each a number or a name.
fn is_user(text: &str) -> bool {
    let name = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
    };
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    text.len() <= MAX_TEXT && name(user) && group.is_none_or(name)
}

impl Checker {
    pub(super) fn container(&mut self, container: &Container) {
        let reference = "an image reference as \"registry.example/name:tag\" or \"name@sha256:…\"";
        self.expect(is_image_reference(&container.image), "image", reference, quoted(&container.image));
        self.at_most("command", "words", container.command.len(), MAX_WORDS);
        for (i, word) in container.command.iter().enumerate() {
            self.word(&format!("command[{i}]"), word);
        }
        self.at_most("env", "variables", container.env.len(), MAX_WORDS);
        for (name, value) in &container.env {
            let field = format!("env.{}", shortened(name));
            let expected =
                "a name of letters, digits, \"_\", \".\" and \"-\" that does not start with a digit";
            self.expect(is_env_name(name), &field, expected, quoted(name));
            self.word(&field, value);
        }
        self.at_most("ports", "ports", container.ports.len(), MAX_PORTS);
        self.at_most("mounts", "mounts", container.mounts.len(), MAX_MOUNTS);
        let mut paths = BTreeSet::new();
        for (i, mount) in container.mounts.iter().enumerate() {
            let field = format!("mounts[{i}].path");
            self.absolute_path(&field, &mount.path);
            let again = format!("{} again", quoted(&mount.path));
            self.expect(paths.insert(&mount.path), &field, "a path that no other mount has", again);
        }
        if let Some(user) = &container.user {
            self.expect(is_user(user), "user", "a user as \"1000\", \"1000:1000\" or \"www\"", quoted(user));
        }
    }

    /// A text that becomes an argument or a variable of a process.
    fn word(&mut self, field: &str, word: &str) {
        self.at_most(field, "bytes", word.len(), MAX_WORD);
        if word.contains('\0') {
            self.expect(false, field, "a text without zero bytes", quoted(word));
        }
    }
}
