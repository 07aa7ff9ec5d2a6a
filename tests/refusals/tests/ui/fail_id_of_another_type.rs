// The id has another type than the field of every message: that is one error.
include!("common.rs");

#[states]
enum Process { Waiting, #[done] Done }
#[saga(name = "order", id = id: u32)]
impl Process {
    fn placed(_: Placed) -> (Waiting, Sends<Pay>, After<Overdue>) {
        (Waiting, send(Pay { id: 1 }), after(seconds(1), Overdue {}))
    }
    fn yes(_: Waiting, _: Yes) -> Done { Done }
    fn no(_: Waiting, _: No) -> Done { Done }
    fn overdue(_: Waiting, _: Overdue) -> Done { Done }
}

fn main() {}
