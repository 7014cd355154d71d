"""All our brokers pass the suite that applications use for theirs."""

import pytest

from floorcast.testing.broker_suite import BrokerSuite


class TestBroker(BrokerSuite):
    """The suite, with each backend of the fixture `cluster`."""

    test_failing_delivery_does_not_fail_the_publish = pytest.mark.behaviour("D13")(
        BrokerSuite.test_failing_delivery_does_not_fail_the_publish
    )
