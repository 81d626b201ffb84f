"""An answer is sent exactly once, whatever goes wrong."""

import gc
import threading

import pytest

from lemica_backend.once import Once, OpenAnswers


@pytest.fixture
def sent():
    return []


def last_word():
    return "last word"


def test_only_the_first_answer_is_sent(sent):
    once = Once(sent.append, last_word=last_word)
    assert not once.is_closed
    assert once.send("first")
    assert not once.send("second")
    once.close()
    assert once.is_closed
    assert sent == ["first"]


def test_dropped_answer_gives_the_last_word(sent):
    once = Once(sent.append, last_word=last_word)
    del once
    gc.collect()
    assert sent == ["last word"]


def test_closing_gives_the_last_word_once(sent):
    once = Once(sent.append, last_word=last_word)
    once.close()
    once.close()
    assert not once.send("too late")
    assert sent == ["last word"]


def test_answer_that_cannot_be_sent_is_replaced(sent, caplog):
    def send(answer):
        if answer == "too large":
            raise RuntimeError("no room")
        sent.append(answer)

    assert Once(send, last_word=last_word).send("too large")
    assert sent == ["last word"]
    assert "no room" in caplog.text


def test_nothing_escapes_when_nothing_can_be_sent(caplog):
    def send(_):
        raise RuntimeError("broken")

    assert Once(send, last_word=last_word).send("answer")
    assert "not even an error" in caplog.text


def test_one_of_many_threads_sends(sent):
    once = Once(sent.append, last_word=last_word)
    start = threading.Barrier(8)

    def race(number):
        start.wait()
        once.send(number)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sent) == 1


def test_owner_closes_what_is_open_and_nothing_else(sent):
    answers = OpenAnswers()
    open_one = answers.open(sent.append, last_word=last_word)
    answered = answers.open(sent.append, last_word=last_word)
    answered.send("answer")
    answers.close()
    assert open_one.is_closed
    assert sent == ["answer", "last word"]


def test_owner_does_not_keep_lost_answers_alive(sent):
    answers = OpenAnswers()
    answers.open(sent.append, last_word=last_word)
    gc.collect()
    assert sent == ["last word"]
