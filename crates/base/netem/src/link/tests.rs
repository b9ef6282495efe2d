use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::conditions::{Rate, Reordering};
use crate::trace::Trace;

const MS: i64 = 1_000_000;

/// A packet as the tests send them: its number.
type Arrival = (u64, u32, Nanos, Nanos);

/// Sends packets at instants, takes what is due as soon as it is, and gives number, bytes, instant sent and due.
fn run(link: &mut Link<u64>, packets: &[(Nanos, u32)]) -> Vec<Arrival> {
    let mut arrived = Vec::new();
    let mut take = |link: &mut Link<u64>, until: Nanos| {
        while let Some(next) = link.next_due().filter(|next| *next <= until) {
            while let Some(due) = link.pop(next) {
                assert!(due.due <= next, "handed over {} before it was due", due.due - next);
                arrived.push((due.packet, due.bytes, due.sent, due.due));
            }
            assert_conserved(link);
        }
    };
    for (number, (at, bytes)) in packets.iter().enumerate() {
        take(link, *at);
        link.push(*at, *bytes, number as u64);
        assert_conserved(link);
    }
    take(link, Nanos(i64::MAX / 2));
    assert_eq!(link.held(), 0);
    arrived
}

fn assert_conserved<P>(link: &Link<P>) {
    let c = link.counters();
    assert_eq!(
        c.packets_in,
        c.packets_out + c.dropped_queue + c.dropped_flight + c.lost + link.held(),
        "{c:?}, {} held",
        link.held()
    );
    let (packets, bytes) = link.queued();
    match link.conditions().queue {
        Queue::Packets(most) => assert!(packets <= u64::from(most)),
        Queue::Bytes(most) => assert!(bytes <= u64::from(most)),
    }
}

fn link(conditions: Conditions) -> Link<u64> {
    conditions.check().unwrap();
    Link::new(conditions, 7, Nanos::ZERO)
}

fn evenly(count: usize, every: i64, bytes: u32) -> Vec<(Nanos, u32)> {
    (0..count).map(|i| (Nanos(i as i64 * every), bytes)).collect()
}

#[test]
fn a_delay_is_the_delay_to_the_nanosecond() {
    let mut link = link(Conditions { delay_ms: 12.5, ..Conditions::default() });
    for (number, _, _, due) in run(&mut link, &evenly(50, 333, 100)) {
        assert_eq!(due.0, number as i64 * 333 + 12_500_000);
    }
}

#[test]
fn packets_follow_each_other_at_the_rate() {
    // 12 Mbit/s: a packet of 1500 bytes takes 1 ms.
    let mut link = link(Conditions::path(12_000_000, 5.0));
    let dues: Vec<_> = run(&mut link, &evenly(5, 1, 1_500)).iter().map(|a| a.3.0 / MS).collect();
    assert_eq!(dues, [6, 7, 8, 9, 10]);
}

#[test]
fn a_full_queue_drops_what_comes_last() {
    let conditions = Conditions { queue: Queue::Packets(3), ..Conditions::path(12_000_000, 0.0) };
    let mut link = link(conditions);
    let arrived: Vec<_> = run(&mut link, &evenly(6, 1, 1_500)).iter().map(|a| a.0).collect();
    assert_eq!(arrived, [0, 1, 2]);
    let counters = link.counters();
    assert_eq!((counters.dropped_queue, counters.queue_bytes_max), (3, 4_500));
}

#[test]
fn a_new_rate_holds_for_the_rest_of_the_packet_being_sent() {
    let mut link = link(Conditions::path(12_000_000, 0.0));
    link.push(Nanos::ZERO, 1_500, 0);
    link.push(Nanos::ZERO, 1_500, 1);
    link.set(Nanos(MS / 2), Conditions::path(6_000_000, 0.0));
    assert_eq!(link.next_due(), Some(Nanos(MS / 2 + MS)));
    let dues: Vec<_> = std::iter::from_fn(|| link.pop(Nanos(100 * MS)).map(|d| d.due.0 / 1_000)).collect();
    assert_eq!(dues, [1_500, 3_500]);
}

#[test]
fn a_new_delay_holds_for_what_is_sent_from_then_on_and_keeps_the_order() {
    let mut link = link(Conditions { delay_ms: 50.0, ..Conditions::default() });
    link.push(Nanos::ZERO, 100, 0);
    link.set(Nanos(MS), Conditions { delay_ms: 10.0, ..Conditions::default() });
    link.push(Nanos(2 * MS), 100, 1);
    link.push(Nanos(45 * MS), 100, 2);
    let dues: Vec<_> =
        std::iter::from_fn(|| link.pop(Nanos(100 * MS)).map(|d| (d.packet, d.due.0 / MS))).collect();
    assert_eq!(dues, [(0, 50), (1, 50), (2, 55)]);
}

#[test]
fn losses_have_the_probability_asked_for() {
    for (loss, expected) in [
        (Loss::Independent(0.1), 0.1),
        (Loss::Independent(1.0), 1.0),
        // In the bad state for 0.02 / (0.02 + 0.18) of the time.
        (Loss::Bursts { good_to_bad: 0.02, bad_to_good: 0.18, bad: 0.8, good: 0.0 }, 0.08),
    ] {
        let mut link = link(Conditions { loss, ..Conditions::default() });
        run(&mut link, &evenly(100_000, 1_000, 100));
        let found = link.counters().lost as f64 / 100_000.0;
        assert!((found - expected).abs() < 0.01, "{loss:?}: {found}");
    }
}

#[test]
fn bursts_lose_packets_in_a_row() {
    let loss = Loss::Bursts { good_to_bad: 0.01, bad_to_good: 0.1, bad: 1.0, good: 0.0 };
    let mut link = link(Conditions { loss, ..Conditions::default() });
    let arrived = run(&mut link, &evenly(100_000, 1_000, 100));
    let bursts = arrived.windows(2).filter(|pair| pair[1].0 > pair[0].0 + 1).count();
    let mean = link.counters().lost as f64 / bursts as f64;
    assert!((mean - 10.0).abs() < 1.0, "bursts of {mean} packets");
}

#[test]
fn jitter_spreads_as_asked_about_the_delay() {
    for (jitter_shape, deviation, bound) in [
        // A uniform spread of ±3 has the standard deviation 3/√3.
        (JitterShape::Uniform, 3.0 / 3f64.sqrt(), 3.0),
        (JitterShape::Normal, 3.0, 9.0),
    ] {
        let mut link =
            link(Conditions { delay_ms: 20.0, jitter_ms: 3.0, jitter_shape, ..Conditions::default() });
        // So far apart that none has to wait for another.
        let delays: Vec<f64> = run(&mut link, &evenly(50_000, 100 * MS, 100))
            .iter()
            .map(|(_, _, sent, due)| (*due - *sent).as_millis_f64())
            .collect();
        let mean = delays.iter().sum::<f64>() / delays.len() as f64;
        let spread = (delays.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / delays.len() as f64).sqrt();
        assert!((mean - 20.0).abs() < 0.1, "{jitter_shape:?}: mean {mean}");
        assert!((spread / deviation - 1.0).abs() < 0.03, "{jitter_shape:?}: spread {spread}");
        assert!(delays.iter().all(|d| (d - 20.0).abs() <= bound + 1e-6));
    }
}

#[test]
fn held_back_packets_are_passed_and_counted() {
    let reordering = Some(Reordering { probability: 0.2, extra_ms: 5.0 });
    let mut link = link(Conditions { delay_ms: 10.0, reordering, ..Conditions::default() });
    let arrived = run(&mut link, &evenly(10_000, MS, 100));
    let late = arrived.iter().filter(|(number, _, _, due)| due.0 == *number as i64 * MS + 15 * MS).count();
    assert!((late as f64 / 10_000.0 - 0.2).abs() < 0.02, "{late} late");
    assert!(link.counters().reordered as f64 > 0.19 * 10_000.0);
    assert_eq!(arrived.len(), 10_000);
}

#[test]
fn what_is_on_the_way_is_bounded() {
    let mut link = link(Conditions { delay_ms: 1_000.0, ..Conditions::default() });
    for number in 0..100_000 {
        link.push(Nanos(number), 1_500, number as u64);
    }
    let counters = link.counters();
    assert!(counters.dropped_flight > 0);
    assert!(link.held() * 1_500 <= FLIGHT_BYTES_MAX);
    assert_conserved(&link);
}

fn losses() -> impl Strategy<Value = Loss> {
    prop_oneof![
        Just(Loss::None),
        (0.0..=1.0).prop_map(Loss::Independent),
        (0.0..=1.0, 0.01..=1.0, 0.0..=1.0, 0.0..=0.5).prop_map(|(good_to_bad, bad_to_good, bad, good)| {
            Loss::Bursts { good_to_bad, bad_to_good, bad, good }
        }),
    ]
}

fn rates() -> impl Strategy<Value = Rate> {
    let trace = (proptest::collection::vec(0u32..30, 0..20), 1u32..30).prop_map(|(mut millis, last)| {
        millis.push(30 + last);
        millis.sort_unstable();
        Rate::Trace(Arc::new(Trace::try_from(millis).unwrap()))
    });
    prop_oneof![Just(Rate::Unlimited), (8_000u64..1_000_000_000).prop_map(Rate::BitsPerS), trace]
}

fn queues() -> impl Strategy<Value = Queue> {
    prop_oneof![(1u32..50).prop_map(Queue::Packets), (1_500u32..50_000).prop_map(Queue::Bytes)]
}

fn any_conditions() -> impl Strategy<Value = Conditions> {
    let shape = prop_oneof![Just(JitterShape::Uniform), Just(JitterShape::Normal)];
    let reordering = proptest::option::of(
        (0.0..=1.0, 0.1..20.0).prop_map(|(probability, extra_ms)| Reordering { probability, extra_ms }),
    );
    (rates(), 0.0..50.0, 0.0..0.33, shape, losses(), reordering, queues()).prop_map(
        |(rate, delay_ms, share, jitter_shape, loss, reordering, queue)| Conditions {
            rate,
            delay_ms,
            jitter_ms: delay_ms * share,
            jitter_shape,
            loss,
            reordering,
            queue,
        },
    )
}

/// Instants that never fall, often equal, and sizes.
fn any_packets() -> impl Strategy<Value = Vec<(Nanos, u32)>> {
    proptest::collection::vec((prop_oneof![Just(0i64), 0i64..5_000_000], 20u32..9_000), 1..200).prop_map(
        |steps| {
            let mut at = 0;
            steps
                .into_iter()
                .map(|(step, bytes)| {
                    at += step;
                    (Nanos(at), bytes)
                })
                .collect()
        },
    )
}

proptest! {
    #[test]
    fn nothing_is_made_or_vanishes_and_queues_stay_short(
        conditions in any_conditions(), packets in any_packets(),
    ) {
        // `run` checks the sum and the queue after each step.
        let mut link = link(conditions);
        let arrived = run(&mut link, &packets);
        let mut numbers: Vec<_> = arrived.iter().map(|a| a.0).collect();
        numbers.sort_unstable();
        numbers.dedup();
        prop_assert_eq!(numbers.len(), arrived.len());
        for (number, bytes, sent, due) in &arrived {
            let (at, expected) = packets[*number as usize];
            prop_assert_eq!(*bytes, expected);
            prop_assert!(*sent >= at && *due >= *sent);
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_packets(
        conditions in any_conditions(), other in any_conditions(), packets in any_packets(), seed: u64,
    ) {
        let once = || {
            let mut link = Link::new(conditions.clone(), seed, Nanos::ZERO);
            let half = packets.len() / 2;
            for (number, (at, bytes)) in packets.iter().enumerate() {
                if number == half {
                    link.set(*at, other.clone());
                }
                link.push(*at, *bytes, number);
            }
            let all: Vec<_> =
                std::iter::from_fn(|| link.pop(Nanos(i64::MAX / 2)).map(|d| (d.packet, d.due))).collect();
            let c = link.counters();
            assert_eq!(c.packets_in, c.packets_out + c.dropped_queue + c.dropped_flight + c.lost);
            all
        };
        prop_assert_eq!(once(), once());
    }

    #[test]
    fn without_reordering_the_order_is_kept(
        mut conditions in any_conditions(), mut later in any_conditions(), packets in any_packets(),
    ) {
        (conditions.reordering, later.reordering) = (None, None);
        let mut link = link(conditions);
        let (before, after) = packets.split_at(packets.len() / 2);
        for (number, (at, bytes)) in before.iter().enumerate() {
            link.push(*at, *bytes, number as u64);
        }
        if let Some((at, _)) = after.first() {
            link.set(*at, later);
        }
        for (number, (at, bytes)) in after.iter().enumerate() {
            link.push(*at, *bytes, (before.len() + number) as u64);
        }
        let mut numbers = Vec::new();
        let mut last = Nanos(i64::MIN);
        while let Some(due) = link.pop(Nanos(i64::MAX / 2)) {
            prop_assert!(due.due >= last);
            last = due.due;
            numbers.push(due.packet);
        }
        prop_assert!(numbers.is_sorted());
        prop_assert_eq!(link.counters().reordered, 0);
    }

    #[test]
    fn no_window_sees_more_than_the_rate(
        rate in 8_000u64..1_000_000_000, loss in losses(), queue in queues(), packets in any_packets(),
    ) {
        let mut link = link(Conditions { loss, queue, ..Conditions::path(rate, 3.0) });
        let arrived = run(&mut link, &packets);
        for from in 0..arrived.len() {
            let mut bits = 0u128;
            for (_, bytes, _, due) in &arrived[from + 1..] {
                bits += u128::from(*bytes) * 8;
                let window = (*due - arrived[from].3).0 as u128;
                // Instants are whole nanoseconds: one more at the end.
                prop_assert!(bits * 1_000_000_000 <= u128::from(rate) * (window + 1));
            }
        }
    }

    #[test]
    fn no_opportunity_of_a_trace_is_used_twice(
        mut millis in proptest::collection::vec(0u32..30, 0..20), queue in queues(), packets in any_packets(),
    ) {
        millis.push(31);
        millis.sort_unstable();
        let trace = Arc::new(Trace::try_from(millis).unwrap());
        let conditions = Conditions { rate: Rate::Trace(Arc::clone(&trace)), queue, ..Conditions::default() };
        let mut link = link(conditions);
        let mut by_instant = std::collections::BTreeMap::<Nanos, u64>::new();
        let arrived = run(&mut link, &packets);
        for (_, bytes, sent, _) in &arrived {
            *by_instant.entry(*sent).or_default() += u64::from(*bytes);
        }
        let (mut sum, mut last) = (0, None);
        for (instant, bytes) in by_instant {
            let first = trace.first_at(instant);
            prop_assert_eq!(trace.instant(first), instant, "nothing is sent between opportunities");
            sum += bytes;
            let passed = trace.first_at(instant + Nanos(1));
            prop_assert!(sum <= passed * 1_500, "{} bytes by opportunity {}", sum, passed);
            prop_assert!(last.is_none_or(|last| last < instant));
            last = Some(instant);
        }
    }
}
