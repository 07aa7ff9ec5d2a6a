//! What happens when the broker stops, blocks or loses patience, in tests that own it. Slow: each starts its servers.

use async_trait::async_trait;
use saga_core::{Context, Destination, Endpoint, Fate, Handle, HandlerError, Link, LinkState, Transport};
use servers::{Broker, Stop};
use std::{
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tests::{
    BrokerAt, PATIENCE, eventually,
    house::{House, held, unchanged},
    link::{attach, close, confirmed, event, fates, limits, outgoing, provision, to, topology},
    model::{Effects, Work, WorkOutcome, Worked},
    own::Own,
    proxy::Proxy,
};
use tokio::{
    task::{block_in_place, spawn_blocking},
    time::{Instant, sleep, timeout},
};
use transports::RabbitMq;

/// What the conformance table allows.
const RESUMES: Duration = Duration::from_secs(5);

/// A number from the environment, for runs of another size.
fn size(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

/// The broker is away for 10 s, which is more than any pause between two tries; SAGABUS_TEST_AWAY=60 makes it 60 s.
#[tokio::test(flavor = "multi_thread")]
async fn r_032_a_broker_that_stops_loses_nothing_counts_no_run_and_is_found_again_within_five_seconds() {
    let mut own = Own::start("").await;
    let house = House::start(own.vhost.transport(), own.stores().await, unchanged).await;
    let away = Duration::from_secs(size("SAGABUS_TEST_AWAY", 10));
    let mut asked = 0;
    // messages are in flight when it stops, and new ones come while it is away
    while house.work.runs() < 50 {
        asked += 1;
        house.ask(asked, "").await;
    }
    let ask_on = async {
        let until = Instant::now() + away;
        while Instant::now() < until {
            asked += 1;
            house.ask(asked, "").await;
            sleep(Duration::from_millis(20)).await;
        }
    };
    block_in_place(|| own.nodes[0].stop()).expect("the broker stops");
    let down = async {
        eventually("both sides to see it", || async {
            matches!(house.worker.link(), LinkState::Down(_)).then_some(())
        })
        .await;
    };
    tokio::join!(ask_on, down);
    let before = house.work.runs();
    assert!(before < asked as usize, "what was asked while the broker was away waits in the outbox");
    block_in_place(|| own.nodes[0].start()).expect("the broker starts");
    let back = Instant::now();
    // a message that was published after its return, and one that was consumed after it
    eventually("work to be published and consumed again", || async { (house.work.runs() > before).then_some(()) })
        .await;
    let resumed = back.elapsed();
    let all: Vec<i64> = (1..=asked as i64).collect();
    eventually("all effects, each once", || async { (house.worker.store().effects().await == all).then_some(()) })
        .await;
    eventually("all events", || async { (house.heard.heard().len() >= all.len()).then_some(()) }).await;
    house.quiet().await;
    assert_eq!(house.work.runs(), all.len(), "a broker that is away costs no run");
    assert!(held(house.worker.store()).await.is_empty() && held(house.listener.store()).await.is_empty());
    let mut heard = house.heard.heard();
    heard.sort_unstable();
    assert_eq!(heard, all.iter().map(|id| *id as u64).collect::<Vec<_>>(), "each event once");
    assert!(resumed <= RESUMES, "it took {resumed:?}");
    println!("away for {away:?}, resumed after {resumed:?}, {asked} messages");
    house.stop().await;
}

/// Does something to a node of the cluster, while the test's other futures go on.
async fn to_node(own: &mut Own, at: usize, act: impl FnOnce(&mut Broker) -> anyhow::Result<()> + Send + 'static) {
    let mut node = own.nodes.remove(at);
    let acting = spawn_blocking(move || act(&mut node).map(|()| node)).await.expect("nobody panics");
    own.nodes.insert(at, acting.expect("the node does as it is told"));
}

/// The node that leads the worker's queue, once every node has a member of it that is up.
async fn leader(own: &Own, members: usize) -> usize {
    eventually(&format!("{members} members of the queue to be up, one of them its leader"), || async {
        let queues = own.vhost.list("queues").await;
        let queue = queues.iter().find(|queue| queue["name"] == "worker")?;
        let online = queue["online"].as_array()?;
        let leader = own.nodes.iter().position(|node| queue["leader"] == node.node())?;
        (online.len() == members && online.contains(&queue["leader"])).then_some(leader)
    })
    .await
}

/// The leader is killed, and the one that follows it stops in good order.
#[tokio::test(flavor = "multi_thread")]
async fn t_024_the_leader_of_the_queue_goes_under_load_and_nothing_is_lost_and_work_resumes_by_itself() {
    let mut own = Own::start_cluster().await;
    let house = House::start(own.vhost.transport(), own.stores().await, unchanged).await;
    // the model's table refuses the effect of number 666
    let (asked, over) = (AtomicU64::new(1000), AtomicBool::new(false));
    let load = async {
        while !over.load(Ordering::SeqCst) {
            house.ask(asked.fetch_add(1, Ordering::SeqCst) + 1, "").await;
            sleep(Duration::from_millis(10)).await;
        }
    };
    // one that was asked after this moment has its effect
    let resumed = async |what: &str| {
        let (last, since) = (asked.load(Ordering::SeqCst), Instant::now());
        eventually(&format!("work to go on after {what}"), || async {
            house.work.handled().iter().any(|id| *id > last).then_some(())
        })
        .await;
        println!("{what}: work went on after {:?}", since.elapsed());
    };
    let trouble = async {
        for is_killed in [true, false] {
            let (what, end): (_, fn(&mut Broker) -> _) = match is_killed {
                true => ("the leader was killed", Broker::kill),
                false => ("the leader was stopped", Broker::stop),
            };
            resumed("the start").await;
            let gone = leader(&own, own.nodes.len()).await;
            let left = (gone + 1) % own.nodes.len();
            own.vhost.ask_at(BrokerAt::cluster(&own.nodes, &own.nodes[left]));
            to_node(&mut own, gone, end).await;
            resumed(what).await;
            let led = leader(&own, own.nodes.len() - 1).await;
            assert_ne!(led, gone, "another node leads the queue");
            to_node(&mut own, gone, Broker::start).await;
        }
        resumed("the last start").await;
        over.store(true, Ordering::SeqCst);
    };
    tokio::join!(load, trouble);
    let all: Vec<i64> = (1001..=asked.load(Ordering::SeqCst) as i64).collect();
    eventually("all effects, each once", || async { (house.worker.store().effects().await == all).then_some(()) })
        .await;
    eventually("all events", || async { (house.heard.heard().len() >= all.len()).then_some(()) }).await;
    house.quiet().await;
    assert!(held(house.worker.store()).await.is_empty() && held(house.listener.store()).await.is_empty());
    let mut heard = house.heard.heard();
    heard.sort_unstable();
    assert_eq!(heard, all.iter().map(|id| *id as u64).collect::<Vec<_>>(), "each event once");
    assert_eq!(house.work.runs(), all.len(), "a node that goes costs no run");
    println!("{} messages", all.len());
    house.stop().await;
}

/// Every 250 messages the server of all three databases is stopped, in order and as if it crashed by turns, while they
/// are on their way. SAGABUS_TEST_ORDERS=5000 makes it 20 restarts.
#[tokio::test(flavor = "multi_thread")]
async fn r_035_a_database_that_restarts_again_and_again_loses_nothing_and_doubles_nothing() {
    const AT_ONCE: u64 = 250;
    const FIRST: u64 = 1000; // beyond the numbers that mean something to the handler
    let own = Own::start("").await;
    let house = House::start(own.vhost.transport(), own.stores().await, unchanged).await;
    let orders = size("SAGABUS_TEST_ORDERS", 1500);
    let mut restarted = Instant::now();
    for (turn, first) in (FIRST..FIRST + orders).step_by(AT_ONCE as usize).enumerate() {
        let mut session = house.journeys.session().await.expect("a session opens");
        for id in first..(first + AT_ONCE).min(FIRST + orders) {
            session.send(Work { id, note: String::new() });
        }
        session.commit().await.expect("the session commits");
        let before = house.work.runs();
        eventually("some of them to be handled", || async { (house.work.runs() >= before + 20).then_some(()) }).await;
        let resumed = restarted.elapsed();
        assert!(turn == 0 || resumed <= RESUMES, "restart {turn}: it took {resumed:?}");
        let how = if turn % 2 == 0 { Stop::Immediate } else { Stop::Fast };
        block_in_place(|| own.server.stop(how).and_then(|()| own.server.start())).expect("the server restarts");
        restarted = Instant::now();
    }
    let all: Vec<i64> = (FIRST as i64..(FIRST + orders) as i64).collect();
    eventually("all effects, each once", || async { (house.worker.store().effects().await == all).then_some(()) })
        .await;
    let resumed = restarted.elapsed();
    eventually("all events", || async { (house.heard.heard().len() >= all.len()).then_some(()) }).await;
    house.quiet().await;
    let mut heard = house.heard.heard();
    heard.sort_unstable();
    heard.dedup(); // a run whose commit failed heard it as well
    assert_eq!(heard, all.iter().map(|id| *id as u64).collect::<Vec<_>>(), "each event");
    println!("all were handled {resumed:?} after the last restart, in {} runs", house.work.runs());
    assert!(held(house.worker.store()).await.is_empty() && held(house.listener.store()).await.is_empty());
    house.stop().await;
}

/// Stops the process of a quorum queue, or lets it go on: what is published to it meanwhile gets no confirm, while the
/// broker confirms everything else.
async fn queue_process(own: &Own, queue: &str, what: &str) {
    let code = format!(
        "{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"{}\">>, queue, <<\"{queue}\">>)), \
         {{Name, _}} = amqqueue:get_pid(Q), sys:{what}(Name).",
        own.vhost.name
    );
    block_in_place(|| own.nodes[0].control(&["eval", &code])).expect("the broker does it");
}

/// As one that lost the majority of its members.
#[tokio::test(flavor = "multi_thread")]
async fn t_020_a_queue_that_does_not_confirm_keeps_no_other_waiting() {
    let own = Own::start("").await;
    let proxy = Proxy::to(own.nodes[0].address()).await;
    let transport = own.vhost.transport();
    provision(&transport, "ill", &[]).await;
    provision(&transport, "well", &[]).await;
    // the second host is the same broker, which nobody needs to know
    let second = proxy.instead_of(&own.vhost.url()).replace("amqp://guest:guest@", "");
    let (first, vhost) = own.vhost.url().rsplit_once('/').map(|(a, b)| (a.to_owned(), b.to_owned())).expect("a URL");
    let hosts = format!("{first},{}/{vhost}", second.split('/').next().expect("a host"));
    let short = tests::with!(limits(), confirm = Duration::from_secs(5));
    let sender = RabbitMq::new(&hosts).expect("a URL").attach(topology("sender", &[]), short).await;
    let mut sender = sender.expect("the endpoint attaches");
    let passed = proxy.accepted();
    let send = |sender: &Link, rows: RangeInclusive<u128>, queue: &str| {
        rows.for_each(|n| sender.outgoing.send(outgoing(n, to(queue))).expect("the link is open"));
    };
    // the broker's channel waits for the queue's answer to the first message, and with it the others
    send(&sender, 4001..=4001, "ill");
    confirmed(&mut sender, 1).await;
    queue_process(&own, "ill", "suspend").await;
    send(&sender, 1..=20, "ill");
    send(&sender, 1001..=1100, "well");
    confirmed(&mut sender, 100).await; // nothing of the ill queue is reported before
    let given_up = fates(&mut sender, 20).await;
    assert!(given_up.iter().all(|(n, fate)| *n <= 20 && matches!(fate, Fate::Unanswered(_))), "{given_up:?}");
    assert_eq!(proxy.accepted(), passed, "the broker works, so the connection stays");

    // of so many the broker takes nothing from the channel any more: the connection is left for another host, without
    // those that the queue does not take
    for turn in 0..2 {
        let (ill, well) = (1000 * turn + 100, 1000 * turn + 1200);
        send(&sender, ill..=ill + 499, "ill");
        send(&sender, well..=well + 99, "well");
        let fates = fates(&mut sender, 600).await;
        let given_up = fates.iter().filter(|(_, fate)| matches!(fate, Fate::Unanswered(_)));
        let mut given_up: Vec<u128> = given_up.map(|(n, _)| *n).collect();
        given_up.sort_unstable();
        assert!(given_up.into_iter().eq(ill..=ill + 499), "{fates:?}");
        assert_eq!(fates.values().filter(|fate| **fate == Fate::Confirmed).count(), 100, "{fates:?}");
    }
    assert!(proxy.accepted() > passed, "the other host was expected to be tried");

    queue_process(&own, "ill", "resume").await;
    send(&sender, 5001..=5010, "ill");
    confirmed(&mut sender, 10).await;
}

/// So many tries stay unanswered that the broker reads nothing from the channel any more, and on a new one each try
/// keeps it for seconds: the event waits behind one of them, and all else goes on.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_one_of_its_queues_does_not_confirm_keeps_no_other_message_waiting() {
    let own = Own::start("").await;
    let transport = own.vhost.transport();
    provision(&transport, "ill", &["test.Heard"]).await;
    provision(&transport, "well", &["test.Heard"]).await;
    let mut sender = attach(&transport, "sender", &[]).await;
    let send = |sender: &Link, rows: RangeInclusive<u128>, to: &Destination| {
        rows.for_each(|n| sender.outgoing.send(outgoing(n, to.clone())).expect("the link is open"));
    };
    let (heard, well) = (event("test.Heard"), to("well"));
    send(&sender, 4001..=4001, &heard);
    confirmed(&mut sender, 1).await;
    queue_process(&own, "ill", "suspend").await;
    send(&sender, 1..=600, &heard);
    send(&sender, 1001..=1100, &well);
    let waits = |fate: &Fate| matches!(fate, Fate::Unanswered(_) | Fate::QueueRefused(_));
    let since = Instant::now();
    let said = fates(&mut sender, 700).await;
    println!("all had their fate after {:?}", since.elapsed());
    assert!((1..=600).all(|n| waits(&said[&n])), "each event was expected to wait for one of them: {said:?}");
    assert!((1001..=1100).all(|n| said[&n] == Fate::Confirmed), "{said:?}");
    // as the endpoint goes on: one event asks, and other messages arrive
    send(&sender, 1..=1, &heard);
    send(&sender, 2001..=2100, &well);
    let since = Instant::now();
    let said = fates(&mut sender, 101).await;
    println!("one that asked cost {:?}", since.elapsed());
    assert!(waits(&said[&1]) && (2001..=2100).all(|n| said[&n] == Fate::Confirmed), "{said:?}");
    queue_process(&own, "ill", "resume").await;
    send(&sender, 5001..=5010, &heard);
    confirmed(&mut sender, 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t_021_while_the_broker_blocks_publishers_messages_wait_and_health_says_so() {
    let own = Own::start("").await;
    let house = House::start(own.vhost.transport(), own.stores().await, unchanged).await;
    house.ask(1, "").await;
    eventually("the first effect", || async { (house.work.runs() == 1).then_some(()) }).await;
    block_in_place(|| own.nodes[0].control(&["set_vm_memory_high_watermark", "0.00001"])).expect("an alarm");
    let blocked = Instant::now();
    // more than what fits into the buffers of a socket would, if nobody stopped it
    for id in 2..=200 {
        house.ask(id, "").await;
    }
    eventually("health to say that publishers are blocked", || async {
        matches!(house.journeys.link(), LinkState::Down(why) if why.contains("blocks publishers")).then_some(())
    })
    .await;
    // who stops meanwhile does not wait for the broker
    let stops = attach(&own.vhost.transport(), "stops", &[]).await;
    stops.outgoing.send(outgoing(1, to("stops"))).expect("the link is open");
    let mut state = stops.state.clone();
    let blocks = |state: &LinkState| matches!(state, LinkState::Down(why) if why.contains("blocks publishers"));
    timeout(PATIENCE, state.wait_for(blocks)).await.expect("it is blocked as well").expect("the link is open");
    let since = Instant::now();
    close(stops).await;
    assert!(since.elapsed() < Duration::from_secs(5), "it took {:?} to stop", since.elapsed());
    // longer than a confirm may take: that it does not come is no reason to connect anew
    let waits = Duration::from_secs(20).saturating_sub(blocked.elapsed());
    sleep(waits).await;
    assert!(house.work.runs() < 200, "the broker was expected to take no messages");
    let LinkState::Down(why) = house.journeys.link() else { panic!("the alarm lasts") };
    assert!(why.contains("blocks publishers"), "{why}");
    block_in_place(|| own.nodes[0].control(&["set_vm_memory_high_watermark", "absolute", "2GB"])).expect("its end");
    let over = Instant::now();
    let all: Vec<i64> = (1..=200).collect();
    eventually("all effects, each once", || async { (house.worker.store().effects().await == all).then_some(()) })
        .await;
    println!("all were handled {:?} after the alarm", over.elapsed());
    eventually("health", || async { (house.journeys.link() == LinkState::Up).then_some(()) }).await;
    assert_eq!(house.work.runs(), 200);
    house.quiet().await;
    house.stop().await;
}

/// Waits until the message has come to two processes, and then has its effect.
#[derive(Clone, Default)]
struct Slow {
    runs: Arc<AtomicUsize>,
}

#[async_trait]
impl<Db: Effects> Handle<Work, Db> for Slow {
    async fn handle(&self, work: Work, cx: &mut Context<'_, Db>) -> Result<WorkOutcome, HandlerError> {
        self.runs.fetch_add(1, Ordering::SeqCst);
        eventually("the other process to get the message", || async {
            (self.runs.load(Ordering::SeqCst) >= 2).then_some(())
        })
        .await;
        Db::effect(cx.tx().await?, work.id).await?;
        Ok(Worked { id: work.id }.into())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t_023_a_handler_longer_than_the_brokers_patience_has_one_effect_of_two_runs() {
    let own = Own::start("-rabbit consumer_timeout 2000 channel_tick_interval 500").await;
    let (store, slow) = (own.store("worker").await, Slow::default());
    store.create_effects().await;
    let process = |store, handler| Endpoint::builder("worker", own.vhost.transport(), store).handle::<Work>(handler);
    let other = Endpoint::builder("other", own.vhost.transport(), own.store("other").await).start().await.unwrap();
    // another store: two processes share no connections
    let again = outbox::Postgres::with_connections(&format!("{}/worker", own.server.url("postgres")), 8).unwrap();
    let one = process(store.clone(), slow.clone()).start().await.expect("it starts");
    let two = process(again, slow.clone()).start().await.expect("it starts");
    let mut session = other.session().await.expect("a session opens");
    session.send(Work { id: 7, note: String::new() });
    session.commit().await.expect("the session commits");
    eventually("two runs", || async { (slow.runs.load(Ordering::SeqCst) >= 2).then_some(()) }).await;
    eventually("the effect", || async { (store.effects().await == [7]).then_some(()) }).await;
    // the message is settled, not only committed: nobody has it any more
    eventually("an empty queue", || async {
        let queues = own.vhost.list("queues").await;
        let queue = queues.iter().find(|queue| queue["name"] == "worker")?;
        (queue["messages"] == 0).then_some(())
    })
    .await;
    assert_eq!(store.effects().await, [7], "one of the runs commits");
    assert!(held(&store).await.is_empty());
    for endpoint in [one, two] {
        endpoint.stop().await.expect("an orderly end");
    }
    other.stop().await.expect("an orderly end");
}
