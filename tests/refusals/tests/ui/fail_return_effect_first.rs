// The state comes first, then its effects; and a transition does not fail.
include!("common.rs");

mod before_the_state {
    use super::*;

    #[states]
    enum Process { Waiting, #[done] Done }
    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(_: Placed) -> Waiting { Waiting }
        fn yes(_: Waiting, it: Yes) -> (Publishes<Placed>, Done) { (publish(Placed { id: it.id }), Done) }
    }
}

mod in_an_option_in_either {
    use super::*;

    #[states]
    enum Process { Waiting, #[done] Done }
    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(_: Placed) -> Waiting { Waiting }
        fn yes(_: Waiting, _: Yes) -> Either<Done, (Option<Publishes<Placed>>, Waiting)> { Either::A(Done) }
    }
}

mod without_a_state {
    use super::*;

    #[states]
    enum Process { Waiting, #[done] Done }
    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(_: Placed) -> Waiting { Waiting }
        fn yes(_: Waiting, it: Yes) -> Publishes<Placed> { publish(Placed { id: it.id }) }
    }
}

mod between_the_data_and_the_state {
    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Order { id: u64 }
    #[states(data = Order)]
    enum Process { Waiting, #[done] Done }
    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(it: Placed) -> (Order, Publishes<Yes>, Waiting) {
            (Order { id: it.id }, publish(Yes { id: it.id }), Waiting)
        }
    }
}

mod a_result {
    use super::*;

    #[states]
    enum Process { Waiting, #[done] Done }
    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(_: Placed) -> Waiting { Waiting }
        fn yes(_: Waiting, _: Yes) -> Result<Done, String> { Ok(Done) }
    }
}

mod an_option {
    use super::*;

    #[states]
    enum Process { Waiting, #[done] Done }
    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(_: Placed) -> Waiting { Waiting }
        fn yes(_: Waiting, _: Yes) -> Option<Done> { None }
    }
}

fn main() {}
