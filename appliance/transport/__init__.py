"""The two lines to the network host: messages over MQTT, files over REST."""
