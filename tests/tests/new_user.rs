//! The README as a new user meets it.

use std::process::{Command, Stdio};
use tests::process::program;

/// The section "Add it", followed to the letter in an empty folder: its example compiles, runs and passes its test.
#[test]
fn what_the_readme_tells_a_new_user_works() {
    let done = Command::new(program("xtask")).arg("new-user").stdin(Stdio::null()).output().expect("xtask runs");
    let [out, error] = [&done.stdout, &done.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(done.status.success(), "{out}{error}");
}
