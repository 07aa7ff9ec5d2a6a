//! What the compiler must refuse, with the texts agreed on.
//! `TRYBUILD=overwrite cargo test -p refusals --test ui` writes them anew.

#[test]
fn s_079_what_is_wrong_does_not_compile_and_says_why() {
    trybuild::TestCases::new().compile_fail("tests/ui/fail_*.rs");
}
