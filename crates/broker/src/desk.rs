//! What operators ask of a virtual host.

/// A question.
#[derive(Debug)]
pub(crate) enum Question {
    /// What queues there are.
    Queues,
}

/// An answer.
#[derive(Debug)]
pub(crate) enum Answer {
    Queues(Vec<String>),
}

impl crate::host::Host {
    pub(crate) fn answer(&mut self, _now: mainstay_amqp::Now, question: Question) -> Answer {
        match question {
            Question::Queues => Answer::Queues(Vec::new()),
        }
    }
}
