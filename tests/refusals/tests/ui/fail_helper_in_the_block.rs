// Functions that are no transitions belong into another block.
include!("common.rs");

mod by_reference {
    use super::*;

    #[states]
    enum Process { Waiting, #[done] Done }
    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(_: Placed) -> Waiting { Waiting }
        fn how(text: &str) -> String { text.into() }
    }
}

mod of_the_state {
    use super::*;

    #[states]
    enum Process { Waiting, #[done] Done }
    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(_: Placed) -> Waiting { Waiting }
        fn is_done(&self) -> bool { matches!(self, Self::Done(_)) }
    }
}

mod of_a_number {
    use super::*;

    #[states]
    enum Process { Waiting, #[done] Done }
    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(_: Placed) -> Waiting { Waiting }
        fn twice(n: u32) -> u32 { 2 * n }
    }
}

mod with_a_parameter {
    use super::*;

    #[states]
    enum Process { Waiting, #[done] Done }
    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(_: Placed) -> Waiting { Waiting }
        fn text<T: ToString>(it: T) -> String { it.to_string() }
    }
}

fn main() {}
