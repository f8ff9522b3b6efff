from proxyd.log.episodes import Episodes


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_what_goes_on_is_news_once_and_again_after_it_was_over():
    clock = Clock()
    episodes = Episodes(clock)
    assert [episodes.begins("a") for _ in range(3)] == [True, False, False]
    clock.now = 50
    assert not episodes.begins("a")
    clock.now = 100
    assert not episodes.begins("a")
    clock.now = 161
    assert episodes.begins("a")


def test_how_often_it_happened_is_counted_from_the_beginning_of_an_episode():
    clock = Clock()
    episodes = Episodes(clock)
    assert [episodes.times("a") for _ in range(3)] == [1, 2, 3]
    clock.now = 61
    assert episodes.times("a") == 1


def test_each_has_its_own():
    episodes = Episodes(Clock())
    assert [episodes.begins(what) for what in "abab"] == [True, True, False, False]


def test_with_a_thousand_names_nobody_fills_the_log():
    clock = Clock()
    episodes = Episodes(clock)
    told = [episodes.begins(name) for _ in range(3) for name in range(1000)]
    assert sum(told) == 64
    clock.now = 61
    assert episodes.begins("later")
