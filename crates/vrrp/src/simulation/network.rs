//! Links between routers, each way for itself.

use alloc::vec;
use alloc::vec::Vec;

#[derive(Debug, Clone)]
pub(super) struct Network {
    count: usize,
    cut: Vec<bool>,
    parts: Vec<usize>,
}

impl Network {
    pub(super) fn new(count: usize) -> Self {
        Self {
            count,
            cut: vec![false; count * count],
            parts: vec![0; count],
        }
    }

    /// Whether packets from one reach another.
    pub(super) fn reaches(&self, from: usize, to: usize) -> bool {
        !self.cut[from * self.count + to]
    }

    pub(super) fn both_ways(&self, one: usize, other: usize) -> bool {
        self.reaches(one, other) && self.reaches(other, one)
    }

    pub(super) fn cut(&mut self, from: usize, to: usize) {
        self.cut[from * self.count + to] = true;
        self.find_parts();
    }

    pub(super) fn heal(&mut self) {
        self.cut.fill(false);
        self.find_parts();
    }

    /// For each router the least number of those that it is connected with, in any way.
    pub(super) fn parts(&self) -> &[usize] {
        &self.parts
    }

    fn find_parts(&mut self) {
        self.parts = (0..self.count).collect();
        for _ in 0..self.count {
            for one in 0..self.count {
                for other in 0..self.count {
                    if self.reaches(one, other) {
                        let least = self.parts[one].min(self.parts[other]);
                        (self.parts[one], self.parts[other]) = (least, least);
                    }
                }
            }
        }
    }
}
