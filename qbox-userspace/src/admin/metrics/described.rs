//! Every metric: its name, its labels and what it says. The one place where that stands: `/metrics` is drawn from it, and the tables of
//! docs/metrics.md are written from it (`cargo xtask docs`).
//!
//! Knows no number. No errors: a metric that isn't here can't be drawn.

/// What kind of number it is, which its name ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Goes up and down.
    Gauge,
    /// A gauge of seconds.
    Seconds,
    /// A gauge of bytes.
    Bytes,
    /// Only grows.
    Counter,
    /// Seconds, counted by how many there were.
    Histogram,
}

#[cfg(test)]
impl Kind {
    /// What Prometheus' conventions put behind a name.
    pub(super) const fn suffix(self) -> &'static str {
        match self {
            Self::Gauge => "",
            Self::Seconds | Self::Histogram => "_seconds",
            Self::Bytes => "_bytes",
            Self::Counter => "_total",
        }
    }
}

/// A metric with `N` labels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Metric<const N: usize> {
    pub(super) kind: Kind,
    /// Without `qbox_`, and without what its kind puts behind it.
    pub(super) name: &'static str,
    /// Their values are names that saga files give, and words of Qbox's own: never a caller's text.
    pub(super) labels: [&'static str; N],
    /// In one sentence, as Prometheus shows it.
    pub(super) help: &'static str,
}

/// Any metric, for the page.
#[cfg(test)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Described {
    pub(super) kind: Kind,
    pub(super) name: &'static str,
    pub(super) labels: &'static [&'static str],
    pub(super) help: &'static str,
    /// What else the page says: Markdown.
    pub(super) more: &'static str,
}

/// How many labels there are.
const fn count(labels: &[&str]) -> usize {
    labels.len()
}

macro_rules! metrics {
    ($($heading:literal { $($constant:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal, $more:literal;)* })*) => {
        $($(
            #[doc = $help]
            pub(super) const $constant: Metric<{ count(&[$($label),*]) }> = Metric {
                kind: Kind::$kind,
                name: $name,
                labels: [$($label),*],
                help: $help,
            };
        )*)*

        /// All of them, under the page's headings.
        #[cfg(test)]
        pub(super) const ALL: &[(&str, &[Described])] = &[$(($heading, &[$(Described {
            kind: $constant.kind,
            name: $constant.name,
            labels: &$constant.labels,
            help: $constant.help,
            more: $more,
        }),*])),*];
    };
}

metrics! {
    "The node" {
        BUILD_INFO: Gauge "build_info" ["version"]
            "Always 1; the label is this Qbox's version", "";
        READY: Gauge "ready" []
            "1 when /readyz answers 200, else 0", "`/readyz` says why.";
        DEFINITIONS: Gauge "definitions" []
            "Sagas that are defined", "";
        DEFINITIONS_CURRENT: Gauge "definitions_current" []
            "1 when what is loaded is what the files say, 0 when they can't be used", "What was loaded before is then in force.";
        RELOADS: Counter "reloads" ["outcome"]
            "How often changed files were read, by whether they came into force", "`done` or `failed`.";
        LIMIT_REACHED: Counter "limit_reached" ["limit"]
            "How often a limit of qbox.toml was reached, by its key", "What then becomes of a request stands beside the key in `config/qbox.toml`; the rows below tell more.";
        ALLOCATIONS: Counter "allocations" []
            "Blocks of memory that Qbox asked its allocator for", "Beside the sagas that began and the requests that passed it says what each costs.";
    }
    "Sagas" {
        SAGAS: Gauge "sagas" ["saga", "state"]
            "Sagas that have not ended, by name and state; each that is stuck or halted waits for a person", "`waiting` for a lock, `running`, `compensating`, `stuck`, `halted`.";
        SAGAS_PAUSED: Gauge "sagas_paused" []
            "Sagas that an operator has paused", "";
        SAGAS_LISTENING: Gauge "sagas_listening" []
            "Sagas that are undone as far as is known, and only wait for answers that may come late", "At most `upstream.linger`.";
        STUCK_OLDEST: Seconds "saga_stuck_oldest" []
            "For how long a saga has been stuck, at the most; 0: none is", "";
        RUNNING_OLDEST: Seconds "saga_running_oldest" []
            "How long ago the trigger of a saga came that has neither ended nor is stuck, at the most; 0: there is none", "";
        IN_FLIGHT: Gauge "sagas_in_flight" []
            "Sagas that have a place: waiting, running, compensating or stuck", "";
        IN_FLIGHT_LIMIT: Gauge "sagas_in_flight_limit" []
            "How many places there are (limits.sagas_in_flight)", "";
        IN_HAND: Gauge "sagas_in_hand" []
            "Sagas that are in memory whole", "The others wait for their lock or their turn, or are at rest: stuck, paused, far from their next attempt.";
        BEGUN: Counter "sagas_begun" ["saga"]
            "Sagas that began", "";
        ENDED: Counter "sagas_ended" ["saga", "outcome"]
            "Sagas that ended, by outcome", "`committed` or `compensated`.";
        STUCK: Counter "sagas_stuck" ["saga"]
            "How often a saga got stuck", "";
        HALTED: Counter "sagas_halted" []
            "Sagas that were halted: the journal failed them, or a bug", "";
        HELD_BACK: Counter "sagas_held_back" []
            "How often a saga had as many steps under way as may be (limits.steps_in_flight), and more to begin", "";
        SAGA_DURATION: Histogram "saga_duration" ["saga", "outcome"]
            "From a saga's beginning (its trigger's arrival, or the end of its wait for a lock) to its end", "";
        COMPENSATION_DURATION: Histogram "saga_compensation_duration" ["saga"]
            "From the beginning of a saga's compensation to its end, of those that were compensated", "";
        REFUSED: Counter "triggers_refused" ["reason"]
            "Triggers that began no saga", "`busy`, `locked`, `draining`, `key_reused`, `not_begun` (the journal did not take it), `too_deep`, `orphan` (its step is undone already).";
        JOINED: Counter "triggers_joined" []
            "Triggers that were joined to a saga with the same key", "";
        OBSERVED: Counter "observed" ["fate"]
            "Triggers of sagas that are only observed, by what became of their records", "`recorded`; of these `dropped`, to make room for newer ones (`limits.observed`), and `unrehearsed`, since too many were being rehearsed. `unseen`: passed without a look, since their body is longer than `limits.trigger_body`, is compressed for the transfer, or did not come.";
    }
    "Steps" {
        STEP_DURATION: Histogram "step_duration" ["saga", "step", "outcome"]
            "From a step's first attempt to when it was applied or failed, with its retries and the waits between them", "Of steps that were ever sent. `applied` or `failed`. Since a restart, from the first attempt after it.";
        ATTEMPT_DURATION: Histogram "attempt_duration" ["saga", "step", "direction"]
            "From when an attempt was to be sent to its end, with its wait for a place", "Of messages that were ever sent. `direction`: `transaction`, `probe`, `compensation`.";
        ATTEMPTS: Counter "attempts" ["saga", "step", "direction", "class"]
            "Attempts that ended, by what their end says of the effect", "`applied`, `unknown`, `not_applied`; a compensation that is `applied` has undone its step.";
        RETRIES: Counter "retries" ["saga", "step", "direction"]
            "Attempts that failed, and that another one was to follow", "";
    }
    "Calls to services" {
        CALLS_IN_FLIGHT: Gauge "calls_in_flight" []
            "Calls to services that are in flight", "";
        CALLS_WAITING: Gauge "calls_waiting" []
            "Calls that wait for a place (upstream.concurrency), or for a circuit to close", "";
        CALLS_HELD: Counter "calls_held" []
            "Calls that were held back, nothing sent: no place in time, or an open circuit", "";
        CALLS_LINGERING: Gauge "calls_lingering" []
            "Calls whose timeout is over, and that are still listened to (upstream.linger)", "";
        CALLS_UNHEARD: Counter "calls_unheard" []
            "Calls that were closed without an answer: linger is over, or as many as may be lingered", "What they did after that, nobody hears.";
        CIRCUITS_OPEN: Gauge "circuits_open" []
            "Services whose circuit is open", "`qbox status` names them.";
        CIRCUITS_OPENED: Counter "circuits_opened" []
            "How often a circuit opened, after that many failed connects in a row (upstream.breaker)", "";
    }
    "Journal" {
        JOURNAL_EVENTS: Counter "journal_events" []
            "Events that were appended to the journal", "";
        JOURNAL_SYNCS: Counter "journal_syncs" []
            "Syncs of the disk: of the journal's log, and of its file, which is written once a second", "0 with `store = \"memory\"`.";
        JOURNAL_COMMITS: Histogram "journal_commit_duration" []
            "How long a write to the journal's log took, with its sync", "";
        JOURNAL_SIZE: Bytes "journal_size" []
            "The journal on disk, with its log", "";
        JOURNAL_QUEUED: Bytes "journal_queued" []
            "About how much waits in memory to be written to the journal", "";
        JOURNAL_FAILED: Gauge "journal_failed" []
            "1 when the journal failed, or failed a saga: not ready until a restart", "";
    }
    "Traces" {
        SPANS: Counter "spans" ["fate"]
            "Spans of sagas, by what became of them; none where telemetry.otlp names no collector", "`sent` to the collector; `dropped`, since too many waited; `failed`: it took them not in time, or refused them ([tracing.md](tracing.md)).";
        SPANS_QUEUED: Gauge "spans_queued" []
            "Spans that wait to be sent to the collector", "";
    }
    "Kubernetes, with `enroll` of `[kubernetes]`" {
        KUBERNETES_ANSWERS: Gauge "kubernetes_answers" []
            "1 when the Kubernetes API tells of pods, 0 when what was known before holds", "";
        KUBERNETES_PODS: Gauge "kubernetes_pods" ["enrolled"]
            "Pods of this node, as the Kubernetes API tells", "";
        KUBERNETES_REQUESTS: Counter "kubernetes_requests" ["outcome"]
            "Lists and watches of the Kubernetes API", "A `list` or `watch` that was answered, one that `failed`, a watch that could not go on so that all was listed again (`expired`: 410).";
        KUBERNETES_EVENTS: Counter "kubernetes_events" []
            "Events that watches of the Kubernetes API told, bookmarks too", "";
    }
    "Capture" {
        PODS: Gauge "pods" ["captured"]
            "Pods that are known now and enrolled, by whether their connections are captured", "`false`: `/api/v1/pods` says why.";
        PODS_LEFT: Gauge "pods_left" []
            "Pods that are known now and not enrolled, or of which nobody has said yet", "";
        PODS_LOST: Gauge "pods_lost" []
            "Pods that were captured and are no longer, as the check of every 10 s has found: not ready", "Another program got there first, or Qbox's was detached ([interception.md](interception.md)). They are among those with `captured=\"false\"`.";
        PODS_PRECEDED: Gauge "pods_preceded" []
            "Pods whose connections another program sees before Qbox's", "Where it sends them elsewhere, they are not captured: `/readyz` and `qbox status` name it.";
        CHECK_AGE: Seconds "capture_check_age" []
            "How long ago the capture last looked whether each pod is captured; 0 where nothing is captured", "It does so every 10 s.";
        CAPTURED: Counter "captured_connections" ["fate"]
            "Pods' connections, by what the eBPF programs and the listeners did with them", "`captured` by the programs, `accepted` by a listener; `direct`: to a listener's own address; `stale`: gone before it was accepted; `unenrolled`: of a pod too new to be captured (they went their own way, or were refused); `refused`: as `unknown` and `when_down` of `[capture]` say; `left`: of a pod that is not enrolled, or to a port that it has taken out; `no_memory`: went their own way.";
        ANNOUNCED: Counter "announced_namespaces" ["fate"]
            "Network namespaces that the eBPF programs told of, by whether there was room for the news", "`announced`; `unannounced`: the ring was full, and a scan finds them.";
        MAP_ENTRIES: Gauge "ebpf_map_entries" ["map"]
            "Entries of the eBPF programs' maps; those of flows, announced and events as they were at most 10 s ago", "`destinations` that triggers name, known `namespaces`, `pods` with a rule of their own, `flows`: connections not yet accepted, `announced` namespaces, `events`: bytes of announcements not yet read.";
        MAP_CAPACITY: Gauge "ebpf_map_capacity" ["map"]
            "How many entries the eBPF programs' maps can hold", "Of `events`, bytes.";
    }
    "Connections" {
        CONNECTIONS_OPEN: Gauge "connections_open" []
            "Clients' connections that are open now", "";
        CONNECTIONS: Counter "connections" []
            "Clients' connections that were taken on", "";
        CONNECTIONS_HTTP2: Counter "connections_http2" []
            "Clients' connections that spoke HTTP/2", "";
        CONNECTIONS_OVER_LIMIT: Counter "connections_over_limit" []
            "Clients' connections that were closed at once (limits.connections)", "";
        REQUESTS: Counter "requests" ["handling"]
            "HTTP requests, by what was done with them", "`passed` on, or `taken`: answered by Qbox.";
        THROUGH: Counter "connections_through" ["reason"]
            "Connections that were copied through unread, by reason", "`opaque` (TLS, another protocol), `undecided` (no first line in time, or its client's end in the middle of it), `tunnel` (left HTTP/1 by an upgrade or CONNECT).";
        ERRORS: Counter "proxy_errors" ["kind"]
            "What went wrong between a client and its upstream, by kind", "`dial`, `malformed`, `head_too_large`, `body_too_large`, `response`, `streams`, `client`, `upstream`, `aborted`.";
        RELAY: Histogram "relay_duration" []
            "What Qbox adds to a request that it passes on: from the arrival of its head to when it was written to the service", "With the wait for a connection there.";
    }
}
