// A message that is not there is told once.
include!("common.rs");

mod in_a_list {
    use super::*;

    #[states]
    enum Process { #[ignores(Yess)] Waiting, #[done] Done }
    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(_: Placed) -> Waiting { Waiting }
    }
}

mod in_a_function {
    use super::*;

    #[states]
    enum Process { Waiting, #[done] Done }
    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(_: Placed) -> Waiting { Waiting }
        fn yes(_: Waiting, _: Yess) -> Done { Done }
    }
}

fn main() {}
