"""The Flower App: a Keras CNN on CIFAR-10, trained with FedAvg."""
