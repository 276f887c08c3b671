"""Between the network and the dialogue: the only room that imports Twisted's transports."""
