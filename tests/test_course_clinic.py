"""The bug clinics' runs show the signs by which the exercises tell them apart."""

import numpy as np
import pytest

from dlnotes.course import clinic


@pytest.fixture(scope="module")
def runs():
    return clinic.optimisation_runs()


def test_runs_have_one_row_a_record(runs):
    assert list(runs) == list("ABCDEFG")
    steps = [1, *range(4, 241, 4)]
    for run in runs.values():
        assert run.shape == (61, 6)
        assert np.isfinite(run).all()
        np.testing.assert_array_equal(run[:, 0], steps)


def test_runs_are_the_same_each_time(runs):
    again = clinic.optimisation_runs()
    assert all(np.array_equal(runs[name], again[name]) for name in runs)


def test_no_clipping_shows_one_huge_gradient_and_a_jump_of_the_loss(runs):
    step, loss, _, _, gradient, _ = runs["A"].T
    worst = gradient.argmax()
    assert step[worst] == 120
    assert gradient[worst] > 100 * np.delete(gradient, worst).max()
    assert loss[worst] < 0.5 < 1.5 < loss[worst + 1]


def test_training_mode_shows_in_small_batches_only(runs):
    for name, run in runs.items():
        if name == "B":
            assert run[-1, 2] < 0.2 < 2 < run[-1, 3]
        else:
            np.testing.assert_allclose(run[:, 2], run[:, 3], rtol=1e-9)


def test_small_weights_hold_the_loss_at_that_of_guessing(runs):
    np.testing.assert_allclose(runs["C"][:, 1], np.log(10), atol=0.01)
    assert runs["C"][:, 4].max() < 1e-3 * runs["A"][0, 4]


def test_first_steps_of_adam_with_and_without_bias_correction(runs):
    np.testing.assert_allclose(runs["D"][0, 5], 0.1 / np.sqrt(0.001), rtol=1e-4)
    assert runs["D"][:10, 5].max() > 5
    for name in "BF":
        np.testing.assert_allclose(runs[name][0, 5], 1, rtol=1e-4)


def test_noise_holds_the_loss_up(runs):
    assert runs["E"][-10:, 1].min() > 0.1
    assert runs["E"][-10:, 1].max() < 1.5
    assert runs["F"][-10:, 1].max() < 0.05


def test_too_high_a_rate_throws_the_weights_out_and_kills_the_units(runs):
    _, loss, _, _, gradient, _ = runs["G"].T
    assert loss.max() > 5
    assert loss[-10:].min() > 2
    assert gradient[-10:].max() < 1e-6


@pytest.fixture(scope="module")
def convolutions():
    return clinic.convolution_runs()


def test_convolutions_have_one_row_an_epoch_and_are_the_same_each_time(convolutions):
    again = clinic.convolution_runs()
    assert list(convolutions) == list("ABCDEF")
    for name, run in convolutions.items():
        assert run.shape == (13, 4)
        assert np.isfinite(run).all()
        np.testing.assert_array_equal(run, again[name])


def test_swapped_axes_spoil_the_validation_alone(convolutions):
    healthy, swapped = convolutions["D"], convolutions["A"]
    np.testing.assert_array_equal(swapped[:, [0, 2, 3]], healthy[:, [0, 2, 3]])
    assert healthy[-1, 1] < 0.5 < 2.5 < swapped[-1, 1]


def test_frozen_kernels_have_a_gradient_and_do_not_move(convolutions):
    assert (convolutions["B"][:, 3] == 0).all()
    assert (convolutions["B"][:, 2] > 0.05).all()
    assert convolutions["B"][-1, 0] < 1


def test_a_large_rate_throws_the_kernels_far_away(convolutions):
    others = [run[-1, 3] for name, run in convolutions.items() if name != "C"]
    assert convolutions["C"][1, 3] > 5 * max(others)


def test_few_images_and_mixed_labels(convolutions):
    few, mixed = convolutions["E"], convolutions["F"]
    assert few[-1, 0] < 1 < 2.5 < few[1:, 1].min()
    assert abs(few[1:, 0] - convolutions["D"][1:, 0]).max() > 0.3
    assert mixed[:, 0].min() > 2


@pytest.fixture(scope="module")
def leaks():
    return clinic.regularization_runs()


def test_leaks_have_one_row_an_epoch_and_are_the_same_each_time(leaks):
    assert list(leaks) == list("ABCDEF")
    again = clinic.regularization_runs()
    for name, run in leaks.items():
        assert run.shape == (30, 5)
        assert np.isfinite(run).all()
        np.testing.assert_array_equal(run, again[name])


def test_noisy_labels_harm_validation_and_fresh_alike(leaks):
    training, validation, fresh, _, _ = leaks["A"].T
    assert (training[:10] > validation[:10]).sum() >= 5
    assert validation[-1] > validation.min() + 0.02
    np.testing.assert_allclose(validation, fresh, atol=0.15)


def test_duplicates_are_near_and_too_good(leaks):
    training, validation, fresh, _, distance = leaks["B"].T
    np.testing.assert_allclose(distance, 0.12, atol=0.01)
    np.testing.assert_allclose(validation, training, atol=0.05)
    assert fresh[-1] > 5 * validation[-1]


def test_too_strong_a_decay_keeps_all_losses_near_guessing(leaks):
    assert leaks["C"][-10:, :3].min() > 2.1


def test_dropout_left_on_gives_two_losses_for_the_same_data(leaks):
    for name, run in leaks.items():
        same = np.array_equal(run[:, 1], run[:, 3])
        assert same == (name != "D")
    assert np.abs(leaks["D"][:, 1] - leaks["D"][:, 3]).max() > 0.1


def test_chosen_inputs_fool_the_validation_data_only(leaks):
    _, validation, fresh, _, distance = leaks["E"].T
    assert validation.min() < np.log(10) < fresh[-1]
    assert fresh[validation.argmin()] - validation.min() > 0.5
    np.testing.assert_allclose(distance, 1.02, atol=0.03)


def test_the_healthy_run_has_small_gaps(leaks):
    training, validation, fresh, _, distance = leaks["F"].T
    assert training[-1] < validation[-1] < 0.4
    np.testing.assert_allclose(validation, fresh, atol=0.1)
    np.testing.assert_allclose(distance, 0.97, atol=0.03)
