"""The loops by hand that the trainer is timed against do what the trainer does."""

import pytest

from benchmarks.generative import CASES, disagreement, images_for


@pytest.mark.parametrize("name", CASES)
def test_trainer_and_loop_by_hand_learn_the_same_bit_for_bit(name):
    case = CASES[name]._replace(batch=6, steps=10)  # ten: the critic has its generator's turn twice
    assert disagreement(case, images_for(case)) is None


@pytest.mark.parametrize("name", CASES)
def test_a_loop_that_leaves_out_a_step_is_found_out(name):
    case = CASES[name]._replace(batch=6, steps=5)

    def lazy(model, optimizers, number, images):
        if number != 3:
            CASES[name].step(model, optimizers, number, images)

    assert disagreement(case._replace(step=lazy), images_for(case)) is not None
