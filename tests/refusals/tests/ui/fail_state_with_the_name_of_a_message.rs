// States become structs of the module: the first error says so.
include!("common.rs");

mod taken {
    use super::*;

    #[derive(Event, Serialize, Deserialize)]
    struct Shipped { id: u64 }
    #[states]
    enum Process { Waiting, #[done] Shipped }
    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(_: Placed) -> Waiting { Waiting }
        fn shipped(_: Waiting, _: Shipped) -> Shipped { Shipped }
    }
}

mod published {
    use super::*;

    #[derive(Event, Serialize, Deserialize)]
    struct Ended { id: u64 }
    #[states]
    enum Process { Waiting, #[done] Ended }
    #[saga(name = "order", id = id: u64)]
    impl Process {
        fn placed(_: Placed) -> Waiting { Waiting }
        fn yes(_: Waiting, _: Yes) -> (Ended, Publishes<Ended>) { todo!() }
    }
}

fn main() {}
