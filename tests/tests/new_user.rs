//! The README and the tutorial as a new user meets them.

use std::process::{Command, Stdio};
use tests::process::program;

/// The section "Add it", and the steps of docs/book/first-saga.md, followed to the letter in an empty folder: what they
/// show compiles, runs and passes its tests. So does the package of template/.
#[test]
fn what_the_readme_and_the_tutorial_tell_a_new_user_works() {
    let done = Command::new(program("xtask")).arg("new-user").stdin(Stdio::null()).output().expect("xtask runs");
    let [out, error] = [&done.stdout, &done.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(done.status.success(), "{out}{error}");
}
